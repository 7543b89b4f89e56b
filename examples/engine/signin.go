package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/term"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/users"
)

// openUsers opens the users of the data directory and makes those of the
// configuration what it says. If there are none at all it makes one, admin, with a
// password that is good for choosing another, and says it once.
func openUsers(ctx context.Context, cfg *config.Config, env config.Environment, tell io.Writer) (*users.Store, error) {
	people, err := users.Open(filepath.Join(cfg.DataDir, "users.json"), users.Options{})
	if err != nil {
		return nil, err
	}
	configured := make([]users.Configured, len(cfg.Users))
	for i, u := range cfg.Users {
		configured[i] = users.Configured{Name: u.Name, Role: u.Role, Password: u.Password, Hash: u.PasswordHash}
	}
	if err := people.Configure(ctx, configured); err != nil {
		return nil, err
	}
	password, err := people.CreateFirst(ctx)
	if err != nil || password == "" {
		return people, err
	}
	url := "http://" + env.HTTPAddr
	if env.HTTPSAddr != "" {
		url = "https://" + env.HTTPSAddr
	}
	return people, tellPassword(tell, cfg.DataDir, password, url)
}

// tellPassword shows a one-time password on the terminal. What is no terminal is
// most often collected as a log, where no password belongs: then it is put into a
// file.
func tellPassword(tell io.Writer, dir, password, url string) error {
	if terminal, ok := tell.(*os.File); ok && term.IsTerminal(int(terminal.Fd())) {
		fmt.Fprintf(tell, "Sign in to the API as admin, once, with the password\n\n  %s\n\nand choose your own (docs/api.md). It is not shown again.\n\n"+
			"  curl -i -d username=admin -d password=%s %s/api/users/_login\n\n", password, password, url)
		return nil
	}
	path := filepath.Join(dir, "admin-password")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := writeNew(path, password); err != nil {
		return err
	}
	fmt.Fprintf(tell, "Sign in to the API as admin, once, with the password in %s, and choose your own (docs/api.md); then remove the file.\n\n"+
		"  curl -i -d username=admin --data-urlencode %s %s/api/users/_login\n\n", path, quote("password@"+path), url)
	return nil
}
