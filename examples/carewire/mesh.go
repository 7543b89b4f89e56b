package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/tlsprops"
)

// meshCmds are the commands of `carewire mesh`.
type meshCmds struct {
	Handshake   meshHandshakeCmd   `cmd:"" help:"Tell the server that the mailbox is in use: certificate, name, credentials and clock are good if it answers."`
	Inbox       meshInboxCmd       `cmd:"" help:"List the ids of the messages that wait."`
	Send        meshSendCmd        `cmd:"" help:"Send a file, in chunks if it is large, and go on where a send was interrupted."`
	Receive     meshReceiveCmd     `cmd:"" help:"Receive a message into a file, and go on where that was interrupted."`
	Ack         meshAckCmd         `cmd:"" help:"Acknowledge a message, after which it cannot be received again."`
	Track       meshTrackCmd       `cmd:"" help:"Ask what became of a message that was sent."`
	Lookup      meshLookupCmd      `cmd:"" help:"Find the mailboxes in which an organisation takes a workflow."`
	Poll        meshPollCmd        `cmd:"" help:"Receive what comes into the inbox, as MESH wants it done, until told to end."`
	Doctor      meshDoctorCmd      `cmd:"" help:"Find out why MESH does not answer: certificates, names, expiry, clock, credentials."`
	Conformance meshConformanceCmd `cmd:"" help:"Run the tests of NHS's catalogue against an integration environment, and print the evidence."`
	Fake        meshFakeCmd        `cmd:"" help:"Serve a MESH of its own on this machine, for trying out."`
}

// meshFlags are what every command but fake has. Each flag comes before the
// variable, and that before the file of --dir.
type meshFlags struct {
	BaseURL        string        `name:"base-url" placeholder:"URL" help:"Where the API is (else MESH_BASE_URL or MESH_URI_INTEGRATION)."`
	Mailbox        string        `placeholder:"ID" help:"Mailbox (else MESH_MAILBOX_ID, or mesh-mailbox-id)."`
	PasswordFile   string        `placeholder:"FILE" help:"File that holds the mailbox's password (else MESH_MAILBOX_PASSWORD, or mesh-mailbox-password)."`
	HashSecretFile string        `placeholder:"FILE" help:"File that holds the shared key (else MESH_HASH_SECRET, or mesh-hash-secret)."`
	CA             string        `name:"ca" placeholder:"FILE" help:"Roots that may have issued the server's certificate (else MESH_CA_CERT, or nhs-ptl-rootca.pem)."`
	Cert           string        `placeholder:"FILE" help:"Client certificate (else MESH_CLIENT_CERT, or mesh-client-cert.pem)."`
	Key            string        `placeholder:"FILE" help:"Its private key (else MESH_CLIENT_KEY, or mesh-client-key.pem)."`
	Dir            string        `default:"${meshdir}" placeholder:"DIR" help:"Where those files are (default: ${default})."`
	Timeout        time.Duration `default:"0s" placeholder:"SPAN" help:"How long all of it may take; 0: as long as bytes flow (default: ${default})."`
	JSON           bool          `name:"json" help:"Print JSON, one object a line."`
}

// config returns the settings for the flags.
func (f *meshFlags) config() (meshclient.Config, error) {
	conf, err := meshclient.FromEnvironment(f.Dir, os.Getenv)
	if err != nil {
		return conf, unusable("%w", err)
	}
	conf.BaseURL = cmp.Or(f.BaseURL, conf.BaseURL)
	conf.Mailbox = cmp.Or(f.Mailbox, conf.Mailbox)
	conf.CACert = cmp.Or(f.CA, conf.CACert)
	conf.ClientCert = cmp.Or(f.Cert, conf.ClientCert)
	conf.ClientKey = cmp.Or(f.Key, conf.ClientKey)
	for _, secret := range []struct {
		flag, file string
		to         *string
	}{{"--password-file", f.PasswordFile, &conf.Password}, {"--hash-secret-file", f.HashSecretFile, &conf.HashSecret}} {
		if secret.file == "" {
			continue
		}
		text, err := readBounded(secret.file, maxPasswordBytes)
		if err != nil {
			return conf, unusable("%s: %w", secret.flag, err)
		}
		*secret.to = strings.TrimRight(text, "\r\n")
	}
	return conf, nil
}

// connect returns a client for the flags, and the context for its calls.
func (f *meshFlags) connect(ctx context.Context) (*meshclient.Client, context.Context, context.CancelFunc, error) {
	conf, err := f.config()
	if err != nil {
		return nil, nil, nil, err
	}
	client, err := meshclient.New(conf)
	if err != nil {
		return nil, nil, nil, unusable("%w", err)
	}
	if f.Timeout > 0 {
		ctx, cancel := context.WithTimeout(ctx, f.Timeout)
		return client, ctx, cancel, nil
	}
	return client, ctx, func() {}, nil
}

// with runs do with a client, and ends that.
func (f *meshFlags) with(ctx context.Context, do func(context.Context, *meshclient.Client) error) error {
	client, ctx, cancel, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	defer client.Close()
	err = do(ctx, client)
	if field, _ := errors.AsType[*tlsprops.FieldError](err); field != nil {
		return unusable("%w", err)
	}
	return err
}

type meshHandshakeCmd struct{ meshFlags }

func (c *meshHandshakeCmd) Run(ctx context.Context, s *streams) error {
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		if err := client.Handshake(ctx); err != nil {
			return err
		}
		if c.JSON {
			return s.printJSON(map[string]any{"mailbox": client.Mailbox(), "skewSeconds": client.Skew().Seconds()})
		}
		_, err := fmt.Fprintf(s.out, "%s: the server answered; this machine's clock is %s ahead of its own\n", client.Mailbox(), client.Skew())
		return err
	})
}

type meshInboxCmd struct {
	meshFlags
	Workflow string `placeholder:"FILTER" help:"One workflow, or a filter: W, !W, W*, !W*, *W* or !*W*."`
}

func (c *meshInboxCmd) Run(ctx context.Context, s *streams) error {
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		for id, err := range client.Messages(ctx, &meshclient.Query{WorkflowFilter: c.Workflow}) {
			if err != nil {
				return err
			}
			if c.JSON {
				err = s.printJSON(map[string]string{"messageId": id})
			} else {
				_, err = fmt.Fprintln(s.out, id)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

type meshAckCmd struct {
	meshFlags
	ID []string `arg:"" name:"id" help:"Ids of the messages."`
}

func (c *meshAckCmd) Run(ctx context.Context, s *streams) error {
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		for _, id := range c.ID {
			if err := client.Acknowledge(ctx, id); err != nil {
				return err
			}
			if err := c.acknowledged(s, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// acknowledged prints that a message is out of the inbox.
func (f *meshFlags) acknowledged(s *streams, id string) error {
	if f.JSON {
		return s.printJSON(map[string]any{"messageId": id, "acknowledged": true})
	}
	_, err := fmt.Fprintf(s.out, "acknowledged %s\n", id)
	return err
}

type meshTrackCmd struct {
	meshFlags
	Local bool   `help:"The id is the sender's own, which mesh send printed."`
	ID    string `arg:"" name:"id" help:"Id of the message."`
}

// meshTracked leaves out what may name a patient: file name, subject and
// description.
type meshTracked struct {
	MessageID string `json:"messageId"`
	LocalID   string `json:"localId,omitempty"`
	Recipient string `json:"recipient"`
	Status    string `json:"status"`
	Code      string `json:"code,omitempty"`
}

func (c *meshTrackCmd) Run(ctx context.Context, s *streams) error {
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		ask := client.Track
		if c.Local {
			ask = client.TrackLocal
		}
		t, err := ask(ctx, c.ID)
		if err != nil {
			return err
		}
		if c.JSON {
			return s.printJSON(meshTracked{t.MessageID, t.LocalID, t.Recipient, string(t.Status), t.Code})
		}
		_, err = fmt.Fprintln(s.out, strings.TrimSpace(strings.Join([]string{t.MessageID, string(t.Status), t.Recipient, t.Code}, " ")))
		return err
	})
}

type meshLookupCmd struct {
	meshFlags
	ODSCode  string `arg:"" name:"ods-code" help:"Code of the organisation."`
	Workflow string `arg:"" help:"The workflow."`
}

func (c *meshLookupCmd) Run(ctx context.Context, s *streams) error {
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		found, err := client.Lookup(ctx, c.ODSCode, c.Workflow)
		if err != nil {
			return err
		}
		for _, e := range found {
			if c.JSON {
				err = s.printJSON(map[string]string{"mailbox": e.Mailbox, "name": e.Name})
			} else {
				_, err = fmt.Fprintf(s.out, "%s\t%s\n", e.Mailbox, e.Name)
			}
			if err != nil {
				return err
			}
		}
		if len(found) == 0 {
			return errors.New("no mailbox of that organisation takes that workflow")
		}
		return nil
	})
}
