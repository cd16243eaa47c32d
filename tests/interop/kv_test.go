package interop

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hashicorp/vault/api"
)

// Vault's own client with the key/value engine: no SDK of the key manager can name the rights that it takes, so the
// command line gives them.
func TestVaultClientUsesTheKeyValueEngine(t *testing.T) {
	d := startVault(t)
	policy := filepath.Join(t.TempDir(), "kv.json")
	text := `{"allow":{"SECRET:READ":"app/*","SECRET:WRITE":"app/*","SECRET:DELETE":"app/*","SECRET:LIST":"app/*"}}`
	done(t, os.WriteFile(policy, []byte(text), 0o600))
	add := exec.Command(binary(t), "kms", "add-policy", "all", policy)
	add.Env = append(os.Environ(), "MINIO_KMS_SERVER="+d.endpoint, "MINIO_KMS_ENCLAVE=tenant")
	for name, value := range d.exports {
		add.Env = append(add.Env, name+"="+value)
	}
	if said, err := add.CombinedOutput(); err != nil {
		t.Fatal(string(said))
	}
	config := api.DefaultConfig()
	config.Address = d.vault
	done(t, config.ConfigureTLS(&api.TLSConfig{CACert: certificate(t, "ca.crt")}))
	client := must(api.NewClient(config))(t)
	client.SetToken(d.user.String())

	ctx, kv := context.Background(), client.KVv2("secret")
	if _, err := kv.Get(ctx, "app/db"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Fatal(err)
	}
	first := must(kv.Put(ctx, "app/db", map[string]any{"user": "one"}, api.WithCheckAndSet(0)))(t)
	if first.VersionMetadata.Version != 1 {
		t.Fatal(first.VersionMetadata)
	}
	_, err := kv.Put(ctx, "app/db", map[string]any{"user": "two"}, api.WithCheckAndSet(0))
	if response := (&api.ResponseError{}); !errors.As(err, &response) || response.StatusCode != 400 {
		t.Fatal(err)
	}
	must(kv.Put(ctx, "app/db", map[string]any{"user": "two"}, api.WithCheckAndSet(1)))(t)
	if latest := must(kv.Get(ctx, "app/db"))(t); latest.Data["user"] != "two" || latest.VersionMetadata.Version != 2 {
		t.Fatal(latest)
	}
	if old := must(kv.GetVersion(ctx, "app/db", 1))(t); old.Data["user"] != "one" {
		t.Fatal(old)
	}
	if versions := must(kv.GetVersionsAsList(ctx, "app/db"))(t); len(versions) != 2 {
		t.Fatal(versions)
	}
	done(t, kv.Delete(ctx, "app/db"))
	if deleted := must(kv.Get(ctx, "app/db"))(t); deleted.Data != nil || deleted.VersionMetadata.DeletionTime.IsZero() {
		t.Fatal(deleted)
	}
	done(t, kv.Undelete(ctx, "app/db", []int{2}))
	done(t, kv.Destroy(ctx, "app/db", []int{1}))
	if metadata := must(kv.GetMetadata(ctx, "app/db"))(t); !metadata.Versions["1"].Destroyed || metadata.CurrentVersion != 2 {
		t.Fatal(metadata)
	}
	list := must(client.Logical().List("secret/metadata/app"))(t)
	if keys := list.Data["keys"].([]any); len(keys) != 1 || keys[0] != "db" {
		t.Fatal(list.Data)
	}
	_, err = kv.Get(ctx, "other")
	if response := (&api.ResponseError{}); !errors.As(err, &response) || response.StatusCode != 403 {
		t.Fatal(err)
	}
	done(t, kv.DeleteMetadata(ctx, "app/db"))
}
