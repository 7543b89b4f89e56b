//go:build linux

package smtpx_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/smtpx"
)

// stopPostfix ends the master process, and with it all others.
func stopPostfix(dir string) {
	text, _ := os.ReadFile(dir + "/spool/pid/master.pid")
	var pid int
	if fmt.Sscan(string(text), &pid); pid <= 1 {
		return
	}
	syscall.Kill(pid, syscall.SIGTERM)
	for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			return
		}
	}
}

// startPostfix runs a Postfix until the test ends.
func startPostfix(t testing.TB) *mta {
	t.Helper()
	program := interop.Need(t, "postfix")
	passwords := interop.Need(t, "saslpasswd2")
	if os.Geteuid() != 0 {
		interop.Missing(t, "Postfix starts as root alone")
	}
	p := newMTA(t, 25)
	p.mechanisms = []smtpx.Mechanism{"", smtpx.Plain, smtpx.Login, smtpx.CramMD5, smtpx.ScramSHA1, smtpx.ScramSHA256}
	p.codes = mtaCodes{unknown: "550 5.1.1", relay: "554 5.7.1", password: "535 5.7.8", plaintext: "530 5.7.0"}
	dir := p.dir
	p.mailboxes, p.log = dir+"/mail", dir+"/log/mail.log"
	owner, err := user.Lookup("postfix")
	require.NoError(t, err)
	for _, sub := range []string{"spool", "data", "mail", "sasl", "etc", "etc/sasl", "log"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	var uid, gid int
	fmt.Sscan(owner.Uid, &uid)
	fmt.Sscan(owner.Gid, &gid)
	for _, sub := range []string{"data", "mail"} {
		require.NoError(t, os.Chown(filepath.Join(dir, sub), uid, gid))
	}
	files := p.ca.Server("mail.example.org", p.ip).Write(filepath.Join(dir, "etc"), "server")
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("etc/sasl/smtpd.conf", "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256\nsasldb_path: "+dir+"/sasl/db\n")
	cmd := exec.Command(passwords, "-p", "-c", "-f", dir+"/sasl/db", "-u", "mail.example.org", secretUser)
	cmd.Stdin = strings.NewReader(secretPassword)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, os.Chmod(dir+"/sasl/db", 0o644))
	write("etc/main.cf", strings.NewReplacer("DIR", dir, "UID", owner.Uid, "GID", owner.Gid, "CERT", files.Cert, "KEY", files.Key).Replace(`
compatibility_level = 3.6
queue_directory = DIR/spool
data_directory = DIR/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mail.example.org
mydestination =
default_transport = discard
mynetworks =
inet_protocols = ipv4
maillog_file = DIR/log/mail.log
maillog_file_prefixes = DIR
virtual_mailbox_domains = example.org
virtual_mailbox_base = DIR/mail
virtual_mailbox_maps = inline:{a@example.org=a, b@example.org=b, jörg@example.org=jörg}
virtual_uid_maps = static:UID
virtual_gid_maps = static:GID
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
mailbox_size_limit = 0
message_size_limit = 300000000
smtpd_tls_cert_file = CERT
smtpd_tls_key_file = KEY
smtpd_tls_CAfile = DIR/ca.crt
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = smtpd
smtpd_sasl_security_options = noanonymous
smtpd_sasl_local_domain = mail.example.org
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
smtpd_delay_reject = no
smtpd_discard_ehlo_keywords = CHUNKING
`))
	write("etc/master.cf", strings.NewReplacer("IP", p.ip).Replace(`
IP:2525 inet n - n - - smtpd
IP:2587 inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_tls_auth_only=yes
IP:2465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_tls_security_level=encrypt
IP:2588 inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_tls_req_ccert=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
showq unix n - n - - showq
pickup unix n - n 60 1 pickup
flush unix n - n 1000? 0 flush
smtp unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
`))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// It goes into the background, in a session of its own.
	out, err = exec.CommandContext(ctx, program, "-c", dir+"/etc", "start").CombinedOutput()
	t.Cleanup(func() { stopPostfix(dir) })
	require.NoError(t, err, string(out))
	p.answers(t)
	return p
}
