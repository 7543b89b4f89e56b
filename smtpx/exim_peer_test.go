//go:build linux

package smtpx_test

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/smtpx"
)

// startExim runs an Exim until the test ends. It runs as its own user and not as
// root, from a copy of the program that root's rights do not go with.
func startExim(t testing.TB) *mta {
	t.Helper()
	program := interop.Need(t, "exim4")
	if os.Geteuid() != 0 {
		interop.Missing(t, "the test becomes Exim's user, which root alone can")
	}
	owner, err := user.Lookup("Debian-exim")
	if err != nil {
		interop.Missing(t, "there is no user Debian-exim, whom Debian's Exim looks up before anything else")
	}
	uid, err := strconv.Atoi(owner.Uid)
	require.NoError(t, err)
	gid, err := strconv.Atoi(owner.Gid)
	require.NoError(t, err)

	m := newMTA(t, 90)
	m.mechanisms = []smtpx.Mechanism{"", smtpx.Plain, smtpx.Login, smtpx.CramMD5}
	m.codes = mtaCodes{unknown: "550", relay: "550", password: "535", plaintext: "530 5.7.0"}
	m.mailboxes, m.log = m.dir+"/mail", m.dir+"/log/main"
	for _, sub := range []string{"spool", "mail", "log"} {
		require.NoError(t, os.Mkdir(filepath.Join(m.dir, sub), 0o755))
		require.NoError(t, os.Chown(filepath.Join(m.dir, sub), uid, gid))
	}
	files := m.ca.Server("mail.example.org", m.ip).Write(m.dir, "server")
	require.NoError(t, os.Chown(files.Key, uid, gid))
	binary, err := os.ReadFile(program)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(m.dir+"/exim4", binary, 0o755))
	config := strings.NewReplacer("DIR", m.dir, "IP", m.ip, "CERT", files.Cert, "KEY", files.Key, "USER", secretUser, "PASSWORD", secretPassword).Replace(eximConfig)
	require.NoError(t, os.WriteFile(m.dir+"/exim.conf", []byte(config), 0o644))

	cmd := exec.Command(m.dir+"/exim4", "-C", m.dir+"/exim.conf", "-bdf", "-q1h")
	cmd.Dir, cmd.Env = m.dir, []string{"PATH=/usr/bin:/bin"}
	// A group of its own: the deliveries in hand end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Setpgid: true}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Log(said.String())
		}
	})
	m.answers(t)
	return m
}

// eximConfig has the four ports of an mta.
const eximConfig = `
exim_path = DIR/exim4
spool_directory = DIR/spool
log_file_path = DIR/log/%s
pid_file_path = DIR/spool/exim.pid
keep_environment =
primary_hostname = mail.example.org
local_interfaces = IP
daemon_smtp_ports = 2525 : 2587 : 2465 : 2588
tls_on_connect_ports = 2465
tls_advertise_hosts = ${if eq{$received_port}{2525}{}{*}}
tls_certificate = CERT
tls_privatekey = KEY
tls_verify_certificates = DIR/ca.crt
tls_verify_hosts = ${if eq{$received_port}{2588}{*}{}}
auth_advertise_hosts = ${if or{{def:tls_in_cipher}{eq{$received_port}{2525}}}{*}{}}
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
message_size_limit = 300M
smtp_accept_max = 50
smtp_accept_queue_per_connection = 0
host_lookup =
rfc1413_hosts =
acl_smtp_mail = from
acl_smtp_rcpt = to
log_selector = +smtp_connection +tls_peerdn
domainlist here = example.org

begin acl

from:
  deny !encrypted = *
       condition = ${if eq{$received_port}{2587}}
       message = 530 5.7.0 Must issue a STARTTLS command first
  accept

to:
  accept domains = +here
         verify = recipient
  deny domains = +here
       message = no such mailbox
  accept authenticated = *
         message = thrown away
  deny message = relay not permitted

begin routers

mailboxes:
  driver = accept
  domains = +here
  local_parts = a : b : jörg
  transport = mailbox

elsewhere:
  driver = redirect
  domains = !+here
  data = :blackhole:

begin transports

mailbox:
  driver = appendfile
  file = DIR/mail/$local_part_data
  headers_add = Delivered-To: $local_part@$domain
  return_path_add

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{USER}}{eq{$auth3}{PASSWORD}}}}
  server_set_id = $auth2

login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{USER}}{eq{$auth2}{PASSWORD}}}}
  server_set_id = $auth1

cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{USER}{PASSWORD}fail}
  server_set_id = $auth1
`
