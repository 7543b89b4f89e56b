package api_test

import (
	"context"

	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// idle is the part of an engine that most tests do not look at: whatever it is asked
// for, there is no such channel.
type idle struct{}

func (idle) PauseChannel(context.Context, string) error    { return engine.ErrUnknownChannel }
func (idle) ResumeChannel(context.Context, string) error   { return engine.ErrUnknownChannel }
func (idle) HaltChannel(context.Context, string) error     { return engine.ErrUnknownChannel }
func (idle) DeployChannel(context.Context, string) error   { return engine.ErrUnknownChannel }
func (idle) UndeployChannel(context.Context, string) error { return engine.ErrUnknownChannel }

func (idle) StartConnector(context.Context, string, int) error { return engine.ErrUnknownChannel }
func (idle) StopConnector(context.Context, string, int) error  { return engine.ErrUnknownChannel }

func (idle) Certificates(context.Context) []engine.CertificateUse { return nil }

func (idle) Inject(context.Context, string, engine.Injected) (int64, error) {
	return 0, engine.ErrUnknownChannel
}

func (idle) Reprocess(context.Context, string, int64, []string) (int64, error) {
	return 0, engine.ErrUnknownChannel
}

func (idle) Messages(context.Context, string, store.Filter, int, int) ([]store.Summary, error) {
	return nil, engine.ErrUnknownChannel
}

func (idle) CountMessages(context.Context, string, store.Filter) (int64, error) {
	return 0, engine.ErrUnknownChannel
}

func (idle) Message(context.Context, string, int64) (store.Message, error) {
	return store.Message{}, engine.ErrUnknownChannel
}

func (idle) DeadLetters(context.Context, string, string, int64, int) ([]store.Delivery, error) {
	return nil, engine.ErrUnknownChannel
}

func (idle) Requeue(context.Context, string, string, int64) (int64, error) {
	return 0, engine.ErrUnknownChannel
}

func (idle) RequeueAll(context.Context, string, string) (int, error) {
	return 0, engine.ErrUnknownChannel
}
