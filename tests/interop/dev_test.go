package interop

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/minio/kms-go/kes"
)

// What the README has people do: the three lines that the server prints are all a client needs.
func TestDevServerTellsClientsEverything(t *testing.T) {
	s, ctx := &server{dir: t.TempDir()}, testContext(t)
	lines := s.startDev(t, "server", "--dev", "--addr", "127.0.0.1:0")
	key, err := kes.ParseAPIKey(lines["MINIO_KES_API_KEY"])
	ok(t, err)
	own, err := kes.GenerateCertificate(key)
	ok(t, err)
	config := &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots(t, lines["SSL_CERT_FILE"])}
	client := kes.NewClientWithConfig(lines["MINIO_KES_SERVER"], config)
	ok(t, client.CreateKey(ctx, "my-key"))
	self, _, err := client.DescribeSelf(ctx)
	ok(t, err)
	if !self.IsAdmin || !strings.HasPrefix(lines["MINIO_KES_SERVER"], "https://127.0.0.1:") {
		t.Errorf("%+v at %s", self, lines["MINIO_KES_SERVER"])
	}
}
