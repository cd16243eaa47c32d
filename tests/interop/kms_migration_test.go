package interop

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/minio/kms-go/kms"
)

const testdata = "../../testdata"

func readJSON[T any](t *testing.T, path string) (value T) {
	t.Helper()
	text := must(os.ReadFile(filepath.Join(testdata, path)))(t)
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return value
}

// A move with the commands that the archived program's migrate uses: it imports bytes and a type, lists, and deletes a key
// before it imports another one. Keys that name no algorithm go as AES256, and their ChaCha20 ciphertexts still decrypt.
func TestKMSMigrationByTheSDK(t *testing.T) {
	ctx, _, root := withEnclave(t)
	type stored struct {
		Name      string
		KES       string
		Key       string
		Algorithm *string
	}
	keys := readJSON[[]stored](t, "stored-keys/manifest.json")
	versions := map[string]bool{}
	for _, key := range keys {
		versions[key.KES] = true
		kind := kms.AES256
		if key.Algorithm != nil && *key.Algorithm == "ChaCha20" {
			kind = kms.ChaCha20
		}
		request := &kms.ImportKeyRequest{Name: key.Name, Type: kind, Key: must(hex.DecodeString(key.Key))(t)}
		done(t, root.ImportKey(ctx, enclave, request))
		refused(t, root.ImportKey(ctx, enclave, request), kms.ErrKeyExists)
		done(t, root.DeleteKey(ctx, enclave, &kms.DeleteKeyRequest{Name: key.Name, AllVersions: true}))
		done(t, root.ImportKey(ctx, enclave, request))
	}
	listed := must(root.ListKeys(ctx, &kms.ListRequest{Enclave: enclave}))(t)
	if len(listed.Items) != len(keys) {
		t.Fatalf("%d of %d keys", len(listed.Items), len(keys))
	}
	type ciphertext struct {
		ID, Key                        string
		Context, Plaintext, Ciphertext []byte
	}
	decrypted := 0
	for version := range versions {
		for _, c := range readJSON[[]ciphertext](t, "ciphertexts/"+version+".json") {
			plain, err := root.Decrypt(ctx, enclave, &kms.DecryptRequest{Name: c.Key, Ciphertext: c.Ciphertext, AssociatedData: c.Context})
			if err != nil || !bytes.Equal(plain[0].Plaintext, c.Plaintext) {
				t.Fatalf("%s: %v", c.ID, err)
			}
			decrypted++
		}
	}
	if decrypted != 341 {
		t.Fatalf("%d ciphertexts", decrypted)
	}
}
