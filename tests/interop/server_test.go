// Package interop drives the real server through the Go SDK, as its clients do.
package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/kms-go/kes"
)

// A deadline for whole tests: a safety net, not a measure.
const patience = 2 * time.Minute

// The program under test.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CLAVIGER")
	if path == "" {
		t.Fatal("CLAVIGER does not name the built program: run tests/run")
	}
	return path
}

// The development certificate ca.crt, server.crt, … of the repository.
func certificate(t *testing.T, file string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "certs", file))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	// What NewClient trusts; read when the first certificate is verified.
	ca, err := filepath.Abs(filepath.Join("..", "..", "certs", "ca.crt"))
	if err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", ca)
	os.Exit(m.Run())
}

// A running server. It stops with the test.
type server struct {
	endpoint string
	manager  string   // the endpoint of a key manager's own protocol
	output   []string // the lines of its standard error until it was ready
	dir      string
	admin    kes.APIKey
	app      kes.APIKey
	process  *exec.Cmd
	stopOnce sync.Once
}

const config = `
admin: { identity: %s }
tls: { cert: %s, key: %s }
policy:
  app:
    allow:
    - /v1/key/create/app*
    - /v1/key/describe/app*
    - /v1/key/generate/app*
    - /v1/key/decrypt/app*
    deny:
    - /v1/key/create/app-secret*
    identities: [ %s ]
  nobody:
    allow: [ /v1/status ]
%s
`

// Starts a server with keys in a directory, an admin, and an identity with the policy "app".
func startServer(t *testing.T) *server {
	t.Helper()
	return startServerOf(t, newAPIKey(t), newAPIKey(t))
}

func startServerOf(t *testing.T, admin, app kes.APIKey) *server {
	t.Helper()
	s := &server{dir: t.TempDir(), admin: admin, app: app}
	text := fmt.Sprintf(config, s.admin.Identity(), certificate(t, "server.crt"), certificate(t, "server.key"), s.app.Identity(), keyStore())
	if err := os.WriteFile(filepath.Join(s.dir, "config.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.startKES(t)
	return s
}

// Starts a development server; returns the variables that it tells people to export.
func (s *server) startDev(t *testing.T, args ...string) map[string]string {
	t.Helper()
	s.startUntil(t, "export SSL_CERT_FILE=", args...)
	exports := map[string]string{}
	for _, line := range s.output {
		if assignment, found := strings.CutPrefix(line, "export "); found {
			name, value, _ := strings.Cut(assignment, "=")
			exports[name] = value
		}
	}
	return exports
}

func (s *server) start(t *testing.T, args ...string) {
	t.Helper()
	s.startUntil(t, "=> Server is up", args...)
}

// Starts the program and waits for a line that begins with last.
func (s *server) startUntil(t *testing.T, last string, args ...string) {
	t.Helper()
	s.process = exec.Command(binary(t), args...)
	s.process.Dir = s.dir
	stderr, err := s.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(t) })
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		line := lines.Text()
		s.output = append(s.output, line)
		if _, endpoint, found := strings.Cut(line, "https://"); found && s.endpoint == "" {
			s.endpoint = "https://" + strings.TrimSpace(endpoint)
		}
		if strings.HasPrefix(line, last) {
			break
		}
	}
	if s.endpoint == "" {
		t.Fatalf("the server did not say where it listens: %q", s.output)
	}
	go io.Copy(os.Stderr, stderr)
}

// Stops the server as a service manager does, once.
func (s *server) stop(t *testing.T) {
	s.stopOnce.Do(func() {
		if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := s.process.Wait(); err != nil {
			t.Errorf("the server ended badly: %v", err)
		}
	})
}

func newAPIKey(t *testing.T) kes.APIKey {
	t.Helper()
	key, err := kes.GenerateAPIKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TLS settings of the owner of an API key.
func tlsConfig(t *testing.T, key kes.APIKey) *tls.Config {
	t.Helper()
	own, err := kes.GenerateCertificate(key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots(t, certificate(t, "ca.crt"))}
}

func roots(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s has no certificate", file)
	}
	return pool
}

func (s *server) as(t *testing.T, key kes.APIKey) *kes.Client {
	t.Helper()
	return kes.NewClientWithConfig(s.endpoint, tlsConfig(t, key))
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// Fails the test if err is not nil.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
