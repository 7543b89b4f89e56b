package config

import (
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/users"
)

// users checks the users, and reads the files of their passwords.
func (d *decoder) users(cfg *Config) {
	names := make(map[string]string)
	for i := range cfg.Users {
		u, key := &cfg.Users[i], entry("users", i)
		at := join(key, "name")
		switch {
		case !d.has(at):
			d.at(at, "is missing")
		case d.clean(at) && !users.ValidName(u.Name):
			d.at(at, "may have letters, digits and . _ - @ only, 64 at most")
		case d.clean(at):
			d.distinct(names, at, strings.ToLower(u.Name))
		}
		at = join(key, "role")
		switch {
		case !d.has(at):
			d.at(at, "is missing: write admin, operator or viewer")
		case d.clean(at) && !u.Role.Valid():
			d.at(at, "is not a role: write admin, operator or viewer")
		}
		d.password(u, key)
	}
}

func (d *decoder) password(u *User, key string) {
	var given []string
	for _, name := range []string{"password", "passwordFile", "passwordHash"} {
		if at := join(key, name); d.has(at) {
			given = append(given, at)
		}
	}
	switch {
	case len(given) == 0:
		d.at(join(key, "passwordFile"), "is missing: name a file with the password, or give passwordHash")
		return
	case len(given) > 1:
		d.at(given[1], "excludes %s: keep one of them", lastName(given[0]))
		return
	case !d.clean(given[0]):
		return
	}
	if u.PasswordFile != "" {
		secret, err := readSecret(d.resolve(u.PasswordFile))
		if err != nil {
			d.at(given[0], "%v", err)
			return
		}
		u.Password = secret
	}
	switch {
	case u.PasswordHash != "":
		if err := users.CheckHash(u.PasswordHash); err != nil {
			d.at(given[0], "%v", err)
		}
	case users.CheckPassword(u.Password) != nil:
		d.at(given[0], "a password has %d to 1024 bytes: make one with `openssl rand -base64 18`", users.MinPassword)
	}
}
