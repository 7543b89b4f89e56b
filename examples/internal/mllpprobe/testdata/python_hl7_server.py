# A receiver made of python-hl7's own server, as its documentation shows it: it
# reads messages one after the other and answers each with create_ack. It prints
# its port.
import asyncio

import hl7.mllp


async def serve(reader, writer):
    try:
        while not writer.is_closing():
            message = await reader.readmessage()
            writer.writemessage(message.create_ack())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the sender has gone
    except (hl7.mllp.InvalidBlockError, hl7.HL7Exception, ArithmeticError, LookupError, TypeError, ValueError):
        pass  # what it sent is not understood
    finally:
        writer.close()


async def main():
    server = await hl7.mllp.start_hl7_server(serve, "127.0.0.1", 0, encoding="utf-8")
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
