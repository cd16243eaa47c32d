package interop

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/minio/kms-go/kes"
)

func TestEveryCallIsDeniedToStrangers(t *testing.T) {
	s := startServer(t)
	stranger := s.as(t, newAPIKey(t))
	calls := map[string]func(context.Context) error{
		"APIs":             func(ctx context.Context) error { _, err := stranger.APIs(ctx); return err },
		"AuditLog":         func(ctx context.Context) error { _, err := stranger.AuditLog(ctx); return err },
		"CreateKey":        func(ctx context.Context) error { return stranger.CreateKey(ctx, "k") },
		"Decrypt":          func(ctx context.Context) error { _, err := stranger.Decrypt(ctx, "k", nil, nil); return err },
		"DeleteKey":        func(ctx context.Context) error { return stranger.DeleteKey(ctx, "k") },
		"DescribeIdentity": func(ctx context.Context) error { _, err := stranger.DescribeIdentity(ctx, "i"); return err },
		"DescribeKey":      func(ctx context.Context) error { _, err := stranger.DescribeKey(ctx, "k"); return err },
		"DescribePolicy":   func(ctx context.Context) error { _, err := stranger.DescribePolicy(ctx, "p"); return err },
		"Encrypt":          func(ctx context.Context) error { _, err := stranger.Encrypt(ctx, "k", nil, nil); return err },
		"ErrorLog":         func(ctx context.Context) error { _, err := stranger.ErrorLog(ctx); return err },
		"GenerateKey":      func(ctx context.Context) error { _, err := stranger.GenerateKey(ctx, "k", nil); return err },
		"GetPolicy":        func(ctx context.Context) error { _, err := stranger.GetPolicy(ctx, "p"); return err },
		"HMAC":             func(ctx context.Context) error { _, err := stranger.HMAC(ctx, "k", nil); return err },
		"ImportKey": func(ctx context.Context) error {
			return stranger.ImportKey(ctx, "k", &kes.ImportKeyRequest{Key: make([]byte, 32)})
		},
		"IsReady":        func(ctx context.Context) error { _, err := stranger.IsReady(ctx); return err },
		"ListIdentities": func(ctx context.Context) error { _, _, err := stranger.ListIdentities(ctx, "", 0); return err },
		"ListKeys":       func(ctx context.Context) error { _, _, err := stranger.ListKeys(ctx, "", 0); return err },
		"ListPolicies":   func(ctx context.Context) error { _, _, err := stranger.ListPolicies(ctx, "", 0); return err },
		"Metrics":        func(ctx context.Context) error { _, err := stranger.Metrics(ctx); return err },
		"Status":         func(ctx context.Context) error { _, err := stranger.Status(ctx); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			if err := call(testContext(t)); !errors.Is(err, kes.ErrNotAllowed) {
				t.Errorf("not denied: %v", err)
			}
		})
	}
	if _, err := stranger.Version(testContext(t)); err != nil {
		t.Errorf("the version is for everybody: %v", err)
	}
}

func TestPoliciesHold(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	app := s.as(t, s.app)
	ok(t, app.CreateKey(ctx, "app-one"))
	dek, err := app.GenerateKey(ctx, "app-one", nil)
	ok(t, err)
	if _, err := app.Decrypt(ctx, "app-one", dek.Ciphertext, nil); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"a key outside": app.CreateKey(ctx, "other"),
		"a deny rule":   app.CreateKey(ctx, "app-secret-one"),
		"a call":        app.DeleteKey(ctx, "app-one"),
	} {
		if !errors.Is(err, kes.ErrNotAllowed) {
			t.Errorf("%s is not denied: %v", what, err)
		}
	}
}

func TestPoliciesAndIdentitiesAreShown(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)

	policies, more, err := admin.ListPolicies(ctx, "", 0)
	ok(t, err)
	if !slices.Equal(policies, []string{"app", "nobody"}) || more != "" {
		t.Errorf("policies: %q, more: %q", policies, more)
	}
	policies, _, err = admin.ListPolicies(ctx, "no", 0)
	ok(t, err)
	if !slices.Equal(policies, []string{"nobody"}) {
		t.Errorf("policies that begin with 'no': %q", policies)
	}
	info, err := admin.DescribePolicy(ctx, "app")
	ok(t, err)
	if info.Name != "app" || info.CreatedBy != s.admin.Identity() || info.CreatedAt.IsZero() {
		t.Errorf("policy: %+v", info)
	}
	policy, err := admin.GetPolicy(ctx, "app")
	ok(t, err)
	wantAppPolicy(t, policy)

	identities, more, err := admin.ListIdentities(ctx, "", 0)
	ok(t, err)
	expected := []kes.Identity{s.admin.Identity(), s.app.Identity()}
	slices.Sort(expected)
	if !slices.Equal(identities, expected) || more != "" {
		t.Errorf("identities: %q, more: %q", identities, more)
	}
	identity, err := admin.DescribeIdentity(ctx, s.app.Identity())
	ok(t, err)
	if identity.Policy != "app" || identity.IsAdmin || identity.CreatedBy != s.admin.Identity() {
		t.Errorf("identity: %+v", identity)
	}
	identity, err = admin.DescribeIdentity(ctx, s.admin.Identity())
	ok(t, err)
	if !identity.IsAdmin {
		t.Errorf("admin: %+v", identity)
	}
}

func wantAppPolicy(t *testing.T, policy *kes.Policy) {
	t.Helper()
	if len(policy.Allow) != 4 || len(policy.Deny) != 1 {
		t.Errorf("policy: %+v", policy)
	}
	expected := kes.Policy{
		Allow: map[string]kes.Rule{
			"/v1/key/create/app*": {}, "/v1/key/describe/app*": {}, "/v1/key/generate/app*": {}, "/v1/key/decrypt/app*": {},
		},
		Deny: map[string]kes.Rule{"/v1/key/create/app-secret*": {}},
	}
	if !policy.IsSubset(&expected) || !expected.IsSubset(policy) {
		t.Errorf("not the policy of the config: %+v", policy)
	}
}

func TestEverybodyKnowsThemselves(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	self, _, err := s.as(t, s.admin).DescribeSelf(ctx)
	ok(t, err)
	if self.Identity != s.admin.Identity() || !self.IsAdmin {
		t.Errorf("admin: %+v", self)
	}
	if _, _, err = s.as(t, newAPIKey(t)).DescribeSelf(ctx); !errors.Is(err, kes.ErrIdentityNotFound) {
		t.Errorf("a stranger: %v", err)
	}
	// The SDK has a string where the API has the policy itself, so it cannot read what the server answers to others
	// than the admin. (The archived server tells them that they do not exist.) A newer SDK may read it.
	if _, policy, err := s.as(t, s.app).DescribeSelf(ctx); err == nil {
		wantAppPolicy(t, policy)
	}
	var answer struct {
		Identity kes.Identity
		Admin    bool
		Policy   struct {
			Name string
			kes.Policy
		}
	}
	response, err := s.as(t, s.app).HTTPClient.Get(s.endpoint + "/v1/identity/self/describe")
	ok(t, err)
	defer response.Body.Close()
	ok(t, json.NewDecoder(response.Body).Decode(&answer))
	if answer.Identity != s.app.Identity() || answer.Admin || answer.Policy.Name != "app" {
		t.Errorf("app: %+v", answer)
	}
	wantAppPolicy(t, &answer.Policy.Policy)
}

func TestAnAPIKeySurvivesBeingWrittenDown(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	key, err := kes.ParseAPIKey(s.admin.String())
	ok(t, err)
	if key.Identity() != s.admin.Identity() {
		t.Errorf("%s became %s", s.admin.Identity(), key.Identity())
	}
	// As the SDK's documentation has it, with the system's roots.
	client, err := kes.NewClient(s.endpoint, key, func(certificate *x509.Certificate) {
		certificate.Subject.CommonName = "with a name"
		certificate.NotAfter = time.Now().Add(-time.Hour) // the server looks at the key only
	})
	ok(t, err)
	ok(t, client.CreateKey(ctx, "my-key"))
}

// Identities of certificates that no API key can make.
func TestCertificatesOfOtherKeysHaveIdentities(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	ok(t, err)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	ok(t, err)
	for name, key := range map[string]crypto.Signer{"RSA": rsaKey, "P-256": p256, "P-384": p384} {
		t.Run(name, func(t *testing.T) {
			own := selfSigned(t, key)
			config := &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots(t, certificate(t, "ca.crt"))}
			audit, err := s.as(t, s.admin).AuditLog(ctx)
			ok(t, err)
			defer audit.Close()
			err = kes.NewClientWithConfig(s.endpoint, config).CreateKey(ctx, "k")
			if !errors.Is(err, kes.ErrNotAllowed) {
				t.Fatalf("an identity without policy: %v", err)
			}
			event := nextEvent(t, audit, "/v1/key/create/k")
			spki, err := x509.MarshalPKIXPublicKey(key.Public())
			ok(t, err)
			hash := sha256.Sum256(spki)
			if event.ClientIdentity.String() != hex.EncodeToString(hash[:]) {
				t.Errorf("identity: %s", event.ClientIdentity)
			}
		})
	}
}

func selfSigned(t *testing.T, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ok(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
