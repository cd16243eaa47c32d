package interop

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/mtls"
	"github.com/minio/kms-go/kms"
)

// Whether the tests of the KES API run against a key manager that serves it over an enclave, and not against a key server.
// tests/run runs them against both.
var overEnclave = os.Getenv("CLAVIGER_KES_OVER") == "enclave"

// The HSM key of these key managers.
const hsmKey = "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio="

// The section of the config in place of a key store.
func keyStore() string {
	if overEnclave {
		return "keystore: { enclave: { name: " + enclave + " } }\naddress: 127.0.0.1:0"
	}
	return "keystore: { fs: { path: keys } }"
}

// Starts what serves the KES API with config.yml.
func (s *server) startKES(t *testing.T) {
	t.Helper()
	if !overEnclave {
		s.start(t, "server", "--config", "config.yml", "--addr", "127.0.0.1:0")
		return
	}
	t.Setenv("MINIO_KMS_HSM_KEY", hsmKey)
	s.start(t, "kms", "server", "data", "--address", "127.0.0.1:0", "--kes", "config.yml")
	s.manager = s.endpoint
	for _, line := range s.output {
		if endpoint, found := strings.CutPrefix(line, "KES API"); found {
			s.endpoint = strings.TrimSpace(endpoint)
		}
	}
	done(t, s.root(t).CreateEnclave(testContext(t), &kms.CreateEnclaveRequest{Name: enclave}))
}

// The administrator of the key manager.
func (s *server) root(t *testing.T) *kms.Client {
	t.Helper()
	command := exec.Command(binary(t), "kms", "identity", "--admin")
	command.Env = append(os.Environ(), "MINIO_KMS_HSM_KEY="+hsmKey)
	said := string(must(command.Output())(t))
	_, rest, _ := strings.Cut(said, "API key")
	key, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	pem := must(os.ReadFile(filepath.Join(s.dir, "data", "server.crt")))(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return must(kms.NewClient(&kms.Config{
		Endpoints: []string{s.manager},
		APIKey:    must(mtls.ParsePrivateKey(key))(t),
		TLS:       &tls.Config{RootCAs: pool},
	}))(t)
}

// Skips a test that has something else than keys in the key store, or takes it away. In an enclave there are only keys, and
// it is part of the server.
func needsKeyStore(t *testing.T) {
	t.Helper()
	if overEnclave {
		t.Skip("an enclave holds only keys, and does not get lost on its own")
	}
}

// Makes keys with these names, like the one named.
func (s *server) fill(t *testing.T, like string, names []string) {
	t.Helper()
	if overEnclave {
		root, ctx := s.root(t), testContext(t)
		errs := make(chan error, len(names))
		queue := make(chan string)
		for range 64 {
			go func() {
				for name := range queue {
					errs <- root.CreateKey(ctx, enclave, &kms.CreateKeyRequest{Name: name})
				}
			}()
		}
		for _, name := range names {
			queue <- name
		}
		close(queue)
		for range names {
			done(t, <-errs)
		}
		return
	}
	value := must(os.ReadFile(filepath.Join(s.dir, "keys", like)))(t)
	for _, name := range names {
		ok(t, os.WriteFile(filepath.Join(s.dir, "keys", name), value, 0o600))
	}
}
