package interop

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/minio/kms-go/kes"
)

func TestStatus(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	version, err := admin.Version(ctx)
	ok(t, err)
	state, err := admin.Status(ctx)
	ok(t, err)
	if version == "" || state.Version != version || state.OS != runtime.GOOS || state.Arch != runtime.GOARCH {
		t.Errorf("version %q, state %+v", version, state)
	}
	if state.CPUs != runtime.NumCPU() || state.UsableCPUs < 1 || state.HeapAlloc == 0 || state.StackAlloc == 0 {
		t.Errorf("not of this machine: %+v", state)
	}
	if !state.KeyStoreReachable || !state.KeystoreAvailable {
		t.Errorf("the key store: %+v", state)
	}
	if state.KeyStoreLatency < time.Millisecond || state.KeyStoreLatency > patience || state.UpTime > patience {
		t.Errorf("not in the units that clients take: %+v", state)
	}
	ready, err := admin.IsReady(ctx)
	ok(t, err)
	if !ready {
		t.Error("not ready")
	}
}

func TestStatusWithoutKeyStore(t *testing.T) {
	needsKeyStore(t)
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	ok(t, os.Remove(filepath.Join(s.dir, "keys")))
	state, err := admin.Status(ctx)
	ok(t, err)
	if state.KeyStoreReachable || state.KeystoreAvailable {
		t.Errorf("its directory is gone, and yet: %+v", state)
	}
	ready, err := admin.IsReady(ctx)
	if ready || err == nil {
		t.Errorf("its directory is gone, and yet it is ready: %v, %v", ready, err)
	}
}

func TestAPIs(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	apis, err := s.as(t, s.admin).APIs(ctx)
	ok(t, err)
	byPath := map[string]kes.API{}
	for _, api := range apis {
		byPath[api.Path] = api
	}
	for _, expected := range []kes.API{
		{Method: "GET", Path: "/version", Timeout: 10 * time.Second},
		{Method: "PUT", Path: "/v1/key/create/", Timeout: 15 * time.Second},
		{Method: "PUT", Path: "/v1/key/decrypt/", MaxBody: 1_000_000, Timeout: 15 * time.Second},
		{Method: "DELETE", Path: "/v1/key/delete/", Timeout: 15 * time.Second},
		{Method: "GET", Path: "/v1/log/audit"},
	} {
		if byPath[expected.Path] != expected {
			t.Errorf("%+v, and not %+v", byPath[expected.Path], expected)
		}
	}
}

// The next audit event about path.
func nextEvent(t *testing.T, audit *kes.AuditStream, path string) kes.AuditEvent {
	t.Helper()
	for audit.Next() {
		if event := audit.Event(); event.APIPath == path {
			return event
		}
	}
	t.Fatalf("the audit log ended: %v", audit.Close())
	return kes.AuditEvent{}
}

func TestAuditLogIsLive(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin, app := s.as(t, s.admin), s.as(t, s.app)
	// Returns when the headers are there, which is before there is any event.
	audit, err := admin.AuditLog(ctx)
	ok(t, err)
	defer audit.Close()
	before := time.Now().Add(-time.Minute)

	ok(t, app.CreateKey(ctx, "app-one"))
	event := nextEvent(t, audit, "/v1/key/create/app-one")
	if event.StatusCode != 200 || event.ClientIdentity != s.app.Identity() || event.ClientIP.String() != "127.0.0.1" {
		t.Errorf("event: %+v", event)
	}
	if event.Timestamp.Before(before) || event.ResponseTime <= 0 || event.ResponseTime > patience {
		t.Errorf("not in the units that clients take: %+v", event)
	}
	// And while the stream is open, not only when it ends.
	if err := app.CreateKey(ctx, "other"); err == nil {
		t.Fatal("not denied")
	}
	if event = nextEvent(t, audit, "/v1/key/create/other"); event.StatusCode != 403 {
		t.Errorf("event: %+v", event)
	}
	if _, err := admin.Status(ctx); err != nil {
		t.Fatal(err)
	}
	if event = nextEvent(t, audit, "/v1/status"); event.StatusCode != 200 || event.ClientIdentity != s.admin.Identity() {
		t.Errorf("event: %+v", event)
	}
}

func TestErrorLogIsLive(t *testing.T) {
	needsKeyStore(t)
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	log, err := admin.ErrorLog(ctx)
	ok(t, err)
	defer log.Close()
	for _, name := range []string{"one", "two"} {
		ok(t, os.WriteFile(filepath.Join(s.dir, "keys", name), []byte("no key"), 0o600))
		_, err := admin.DescribeKey(ctx, name)
		wantStatus(t, err, 502, "failed to read key")
		for found := false; !found; {
			if !log.Next() {
				t.Fatalf("the error log ended: %v", log.Close())
			}
			found = strings.Contains(log.Message(), "failed to read key")
			if log.Event().Message != log.Message() {
				t.Errorf("%q is not %q", log.Event().Message, log.Message())
			}
		}
	}
}

func TestLogsCanBeCopied(t *testing.T) {
	s := startServer(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	admin := s.as(t, s.admin)
	audit, err := admin.AuditLog(ctx)
	ok(t, err)
	reader, writer := io.Pipe()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		audit.WriteTo(writer) // ends with an error, since the context does
		writer.Close()
	}()
	ok(t, admin.CreateKey(ctx, "my-key"))
	for lines := bufio.NewScanner(reader); ; {
		if !lines.Scan() {
			t.Fatalf("the copy ended: %v", lines.Err())
		}
		if strings.Contains(lines.Text(), `"/v1/key/create/my-key"`) {
			break
		}
	}
	cancel()
	reader.Close()
	<-copied
}

func TestMetrics(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	first, err := admin.Metrics(ctx)
	ok(t, err)
	if first.CPUs != runtime.NumCPU() || first.UsableCPUs < 1 || first.Threads < 1 {
		t.Errorf("not of this machine: %+v", first)
	}
	if first.HeapAlloc == 0 || first.HeapObjects == 0 || first.StackAlloc == 0 {
		t.Errorf("zero from the first scrape: %+v", first)
	}
	if first.RequestActive != 1 || len(first.LatencyHistogram) < 10 {
		t.Errorf("not counted: %+v", first)
	}

	ok(t, admin.CreateKey(ctx, "my-key"))
	if admin.CreateKey(ctx, "my-key") == nil {
		t.Fatal("created twice")
	}
	var failed uint64
	if !overEnclave {
		failed = 1
		ok(t, os.WriteFile(filepath.Join(s.dir, "keys", "broken"), []byte("no key"), 0o600))
		if _, err := admin.DescribeKey(ctx, "broken"); err == nil {
			t.Fatal("described")
		}
	}
	then, err := admin.Metrics(ctx)
	ok(t, err)
	// The first scrape itself, and the key.
	if then.RequestOK != first.RequestOK+2 || then.RequestErr != first.RequestErr+1 || then.RequestFail != first.RequestFail+failed {
		t.Errorf("%+v, then %+v", first, then)
	}
	if then.AuditEvents != first.AuditEvents+3+failed || then.ErrorEvents <= first.ErrorEvents {
		t.Errorf("%+v, then %+v", first, then)
	}
	if then.LatencyHistogram[10*time.Second] != then.RequestN() {
		t.Errorf("%d requests, and in the histogram: %v", then.RequestN(), then.LatencyHistogram)
	}
}
