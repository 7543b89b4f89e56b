package mirth_test

import (
	"fmt"
	"strings"
)

// The exports of these tests, as Open Integration Engine writes them: every property,
// most of them at their defaults.

const resources = `<resourceIds class="linked-hash-map"><entry><string>Default Resource</string><string>[Default Resource]</string></entry></resourceIds>`

const untouched = `<transformer version="4.5.2">
  <elements/>
  <inboundDataType>HL7V2</inboundDataType><outboundDataType>HL7V2</outboundDataType>
  <inboundProperties class="com.mirth.connect.plugins.datatypes.hl7v2.HL7v2DataTypeProperties" version="4.5.2">
    <serializationProperties><handleRepetitions>true</handleRepetitions><useStrictParser>false</useStrictParser><segmentDelimiter>\r</segmentDelimiter><convertLineBreaks>true</convertLineBreaks></serializationProperties>
    <batchProperties><splitType>MSH_Segment</splitType><batchScript></batchScript></batchProperties>
    <responseGenerationProperties><successfulACKCode>AA</successfulACKCode><msh15ACKAccept>false</msh15ACKAccept></responseGenerationProperties>
  </inboundProperties>
</transformer>
<filter version="4.5.2"><elements/></filter>`

const sourceProperties = `<sourceConnectorProperties version="4.5.2">
  <responseVariable>Auto-generate (After source transformer)</responseVariable>
  <respondAfterProcessing>true</respondAfterProcessing><processBatch>false</processBatch><firstResponse>false</firstResponse>
  <processingThreads>1</processingThreads>` + resources + `<queueBufferSize>1000</queueBufferSize>
</sourceConnectorProperties>`

const destinationProperties = `<destinationConnectorProperties version="4.5.2">
  <queueEnabled>true</queueEnabled><sendFirst>false</sendFirst><retryIntervalMillis>2000</retryIntervalMillis><regenerateTemplate>false</regenerateTemplate>
  <retryCount>0</retryCount><rotate>false</rotate><includeFilterTransformer>false</includeFilterTransformer><threadCount>1</threadCount>
  <threadAssignmentVariable></threadAssignmentVariable><validateResponse>true</validateResponse>` + resources + `<queueBufferSize>1000</queueBufferSize><reattachAttachments>true</reattachAttachments>
</destinationConnectorProperties>`

const mllpMode = `<transmissionModeProperties class="com.mirth.connect.plugins.mllpmode.MLLPModeProperties">
  <pluginPointName>MLLP</pluginPointName><startOfMessageBytes>0B</startOfMessageBytes><endOfMessageBytes>1C0D</endOfMessageBytes>
  <useMLLPv2>false</useMLLPv2><ackBytes>06</ackBytes><nackBytes>15</nackBytes><maxRetries>2</maxRetries>
</transmissionModeProperties>`

func connector(tag, name, transport, class, properties string) string {
	return `<` + tag + ` version="4.5.2"><metaDataId>0</metaDataId><name>` + name + `</name>
<properties class="com.mirth.connect.connectors.` + class + `" version="4.5.2"><pluginProperties/>` + properties + `</properties>
` + untouched + `<transportName>` + transport + `</transportName><mode>ANY</mode><enabled>true</enabled><waitForPrevious>true</waitForPrevious></` + tag + `>`
}

func tcpListener(port int) string {
	return connector("sourceConnector", "sourceConnector", "TCP Listener", "tcp.TcpReceiverProperties", fmt.Sprintf(`
<listenerConnectorProperties version="4.5.2"><host>127.0.0.1</host><port>%d</port></listenerConnectorProperties>`, port)+sourceProperties+mllpMode+`
<serverMode>true</serverMode><remoteAddress></remoteAddress><remotePort></remotePort><overrideLocalBinding>false</overrideLocalBinding>
<reconnectInterval>5000</reconnectInterval><receiveTimeout>0</receiveTimeout><bufferSize>65536</bufferSize><maxConnections>10</maxConnections>
<keepConnectionOpen>true</keepConnectionOpen><dataTypeBinary>false</dataTypeBinary><charsetEncoding>DEFAULT_ENCODING</charsetEncoding>
<respondOnNewConnection>0</respondOnNewConnection><responseAddress></responseAddress><responsePort></responsePort>`)
}

func tcpSender(name string, port int) string {
	return connector("connector", name, "TCP Sender", "tcp.TcpDispatcherProperties", destinationProperties+mllpMode+fmt.Sprintf(`
<serverMode>false</serverMode><remoteAddress>127.0.0.1</remoteAddress><remotePort>%d</remotePort>`, port)+`
<overrideLocalBinding>false</overrideLocalBinding><localAddress>0.0.0.0</localAddress><localPort>0</localPort><sendTimeout>5000</sendTimeout>
<bufferSize>65536</bufferSize><maxConnections>10</maxConnections><keepConnectionOpen>false</keepConnectionOpen><checkRemoteHost>false</checkRemoteHost>
<responseTimeout>5000</responseTimeout><ignoreResponse>false</ignoreResponse><queueOnResponseTimeout>true</queueOnResponseTimeout>
<dataTypeBinary>false</dataTypeBinary><charsetEncoding>DEFAULT_ENCODING</charsetEncoding><template>${message.encodedData}</template>`)
}

func fileWriter(name, directory string) string {
	return connector("connector", name, "File Writer", "file.FileDispatcherProperties", destinationProperties+`
<scheme>FILE</scheme><host>`+directory+`</host><outputPattern>${message.messageId}.hl7</outputPattern><anonymous>true</anonymous><username>anonymous</username>
<password>anonymous</password><timeout>10000</timeout><keepConnectionOpen>true</keepConnectionOpen><maxIdleTime>0</maxIdleTime><secure>true</secure><passive>true</passive>
<validateConnection>true</validateConnection><outputAppend>true</outputAppend><errorOnExists>false</errorOnExists><temporary>false</temporary><binary>false</binary>
<charsetEncoding>DEFAULT_ENCODING</charsetEncoding><template>${message.encodedData}</template>`)
}

func httpSender(name, url string) string {
	return connector("connector", name, "HTTP Sender", "http.HttpDispatcherProperties", destinationProperties+`
<host>`+url+`</host><useProxyServer>false</useProxyServer><proxyAddress></proxyAddress><proxyPort></proxyPort><method>post</method>
<headers class="linked-hash-map"><entry><string>X-Site</string><list><string>north</string></list></entry></headers><parameters class="linked-hash-map"/>
<useHeadersVariable>false</useHeadersVariable><headersVariable></headersVariable><useParametersVariable>false</useParametersVariable><parametersVariable></parametersVariable>
<responseXmlBody>false</responseXmlBody><responseParseMultipart>true</responseParseMultipart><responseIncludeMetadata>false</responseIncludeMetadata>
<responseBinaryMimeTypes>image/.*</responseBinaryMimeTypes><responseBinaryMimeTypesRegex>true</responseBinaryMimeTypesRegex><multipart>false</multipart>
<useAuthentication>true</useAuthentication><authenticationType>Basic</authenticationType><usePreemptiveAuthentication>false</usePreemptiveAuthentication>
<username>mirth</username><password>Xy77Secret</password><content>${message.encodedData}</content><contentType>text/plain</contentType>
<dataTypeBinary>false</dataTypeBinary><charset>UTF-8</charset><socketTimeout>30000</socketTimeout>`)
}

func smtpSender(name string) string {
	return connector("connector", name, "SMTP Sender", "smtp.SmtpDispatcherProperties", destinationProperties+`
<smtpHost>mail.example.org</smtpHost><smtpPort>587</smtpPort><overrideLocalBinding>false</overrideLocalBinding><localAddress>0.0.0.0</localAddress><localPort>0</localPort>
<timeout>5000</timeout><encryption>TLS</encryption><authentication>true</authentication><username>mirth</username><password>Xy77Secret</password>
<to>a@example.org,b@example.org</to><from>engine@example.org</from><cc></cc><bcc></bcc><replyTo></replyTo><headers class="linked-hash-map"/><headersVariable></headersVariable>
<isUseHeadersVariable>false</isUseHeadersVariable><subject>A message</subject><charsetEncoding>DEFAULT_ENCODING</charsetEncoding><html>false</html>
<body>It reads: ${message.rawData}</body><attachments/><attachmentsVariable></attachmentsVariable><isUseAttachmentsVariable>false</isUseAttachmentsVariable>`)
}

func channelWriter(name, target string) string {
	return connector("connector", name, "Channel Writer", "vm.VmDispatcherProperties", destinationProperties+`
<channelId>`+target+`</channelId><channelTemplate>${message.encodedData}</channelTemplate><mapVariables/>`)
}

func httpListener(port int) string {
	return connector("sourceConnector", "sourceConnector", "HTTP Listener", "http.HttpReceiverProperties", fmt.Sprintf(`
<listenerConnectorProperties version="4.5.2"><host>127.0.0.1</host><port>%d</port></listenerConnectorProperties>`, port)+
		strings.Replace(sourceProperties, "Auto-generate (After source transformer)", "None", 1)+`
<xmlBody>false</xmlBody><parseMultipart>true</parseMultipart><includeMetadata>false</includeMetadata><binaryMimeTypes>image/.*</binaryMimeTypes><binaryMimeTypesRegex>true</binaryMimeTypesRegex>
<responseContentType>text/plain</responseContentType><responseDataTypeBinary>false</responseDataTypeBinary><responseStatusCode></responseStatusCode>
<responseHeaders class="linked-hash-map"/><responseHeadersVariable></responseHeadersVariable><useResponseHeadersVariable>false</useResponseHeadersVariable>
<charset>UTF-8</charset><contextPath>hl7</contextPath><timeout>30000</timeout><staticResources/>`)
}

func channelReader() string {
	return connector("sourceConnector", "sourceConnector", "Channel Reader", "vm.VmReceiverProperties", sourceProperties)
}

const dicomTuning = `<soCloseDelay>50</soCloseDelay><releaseTo>5</releaseTo><reaper>10</reaper><pdv1>false</pdv1><sndpdulen>16</sndpdulen><rcvpdulen>16</rcvpdulen>
<async>0</async><bufSize>1</bufSize><sorcvbuf>0</sorcvbuf><sosndbuf>0</sosndbuf><tcpDelay>true</tcpDelay>
<keyPW></keyPW><keyStore></keyStore><keyStorePW></keyStorePW><noClientAuth>true</noClientAuth><nossl2>true</nossl2><tls>notls</tls><trustStore></trustStore><trustStorePW></trustStorePW>`

func dicomListener(port int) string {
	return connector("sourceConnector", "sourceConnector", "DICOM Listener", "dimse.DICOMReceiverProperties", fmt.Sprintf(`
<listenerConnectorProperties version="4.5.2"><host>127.0.0.1</host><port>%d</port></listenerConnectorProperties>`, port)+sourceProperties+`
<applicationEntity>ARCHIVE</applicationEntity><localHost></localHost><localPort></localPort><localApplicationEntity></localApplicationEntity><requestTo>5</requestTo><idleTo>60</idleTo>
<rspDelay>0</rspDelay><bigEndian>false</bigEndian><defts>false</defts><dest></dest><nativeData>false</nativeData>`+dicomTuning)
}

func dicomSender(name string) string {
	return connector("connector", name, "DICOM Sender", "dimse.DICOMDispatcherProperties", destinationProperties+`
<host>pacs.example.org</host><port>11113</port><applicationEntity>PACS</applicationEntity><localHost></localHost><localPort></localPort><localApplicationEntity></localApplicationEntity>
<template>${DICOMMESSAGE}</template><acceptTo>5000</acceptTo><connectTo>0</connectTo><priority>med</priority><passcode></passcode><rspTo>60</rspTo><shutdownDelay>1000</shutdownDelay>
<stgcmt>false</stgcmt><ts1>false</ts1><uidnegrsp>false</uidnegrsp><username></username>`+dicomTuning)
}

func channelXML(id, name, source string, destinations ...string) string {
	return `<channel version="4.5.2"><id>` + id + `</id><nextMetaDataId>3</nextMetaDataId><name>` + name + `</name><description></description><revision>3</revision>
` + source + `<destinationConnectors>` + strings.Join(destinations, "\n") + `</destinationConnectors>
<preprocessingScript>// Whatever a new channel has here
return message;</preprocessingScript>
<postprocessingScript>// and here
return;</postprocessingScript><deployScript>return;</deployScript><undeployScript>return;</undeployScript>
<properties version="4.5.2"><clearGlobalChannelMap>true</clearGlobalChannelMap><messageStorageMode>DEVELOPMENT</messageStorageMode><encryptData>false</encryptData>
<removeContentOnCompletion>false</removeContentOnCompletion><initialState>STARTED</initialState><storeAttachments>true</storeAttachments>
<metaDataColumns><metaDataColumn><name>SOURCE</name><type>STRING</type><mappingName>mirth_source</mappingName></metaDataColumn></metaDataColumns>
<attachmentProperties version="4.5.2"><type>None</type><properties/></attachmentProperties>` + resources + `</properties>
<exportData><metadata><enabled>true</enabled><lastModified><time>1776203573344</time><timezone>UTC</timezone></lastModified>
<pruningSettings><archiveEnabled>true</archiveEnabled><pruneErroredMessages>false</pruneErroredMessages></pruningSettings><userId>1</userId></metadata></exportData></channel>`
}

// channelJSON is a channel as the Node.js Mirth keeps it.
func channelJSON(port, receiver int) string {
	return fmt.Sprintf(`{"id":"0b1f5ed0-aaaa-4bbb-8ccc-0123456789ab","name":"ADT from wards","revision":1,"enabled":true,
"sourceConnector":{"metaDataId":0,"name":"sourceConnector","enabled":true,"transportName":"TCP Listener",
 "properties":{"listenerConnectorProperties":{"host":"127.0.0.1","port":"%d"},"transmissionModeProperties":{"pluginPointName":"MLLP","startOfMessageBytes":"0B","endOfMessageBytes":"1C0D"},"maxConnections":10,"receiveTimeout":0,"keepConnectionOpen":true},
 "filter":{"rules":[]},"transformer":{"steps":[],"inboundDataType":"HL7V2","outboundDataType":"HL7V2"}},
"destinationConnectors":[{"metaDataId":1,"name":"To the lab","enabled":true,"transportName":"TCP Sender","queueEnabled":true,"waitForPrevious":true,
 "properties":{"remoteAddress":"127.0.0.1","remotePort":"%d","sendTimeout":5000,"responseTimeout":5000,"keepConnectionOpen":false,"template":"${message.encodedData}"},
 "filter":{"rules":[]},"transformer":{"steps":[],"inboundDataType":"HL7V2","outboundDataType":"HL7V2"}}],
"preprocessingScript":"return message;","postprocessingScript":"","deployScript":"","undeployScript":"",
"properties":{"messageStorageMode":"PRODUCTION","initialState":"STARTED","encryptData":false,"removeContentOnCompletion":false}}`, port, receiver)
}
