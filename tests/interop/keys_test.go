package interop

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/minio/kms-go/kes"
)

func TestKeyIsMadeUsedAndDeleted(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	before := time.Now().Add(-time.Minute)
	ok(t, admin.CreateKey(ctx, "my-key"))

	info, err := admin.DescribeKey(ctx, "my-key")
	ok(t, err)
	if info.Name != "my-key" || info.CreatedBy != s.admin.Identity() || info.CreatedAt.Before(before) {
		t.Errorf("not what was made: %+v", info)
	}
	if info.Algorithm != kes.AES256 && info.Algorithm != kes.ChaCha20 {
		t.Errorf("an algorithm that clients do not know: %v", info.Algorithm)
	}

	plaintext, associated := []byte("attack at dawn"), []byte(`{"bucket":"b/o"}`)
	sealed, err := admin.Encrypt(ctx, "my-key", plaintext, associated)
	ok(t, err)
	opened, err := admin.Decrypt(ctx, "my-key", sealed, associated)
	ok(t, err)
	if !bytes.Equal(opened, plaintext) {
		t.Errorf("%q became %q", plaintext, opened)
	}

	dek, err := admin.GenerateKey(ctx, "my-key", associated)
	ok(t, err)
	opened, err = admin.Decrypt(ctx, "my-key", dek.Ciphertext, associated)
	ok(t, err)
	if len(dek.Plaintext) != 32 || !bytes.Equal(opened, dek.Plaintext) {
		t.Errorf("a data key of %d bytes, or another one after decryption", len(dek.Plaintext))
	}
	bare, err := admin.GenerateKey(ctx, "my-key", nil)
	ok(t, err)
	if _, err = admin.Decrypt(ctx, "my-key", bare.Ciphertext, nil); err != nil {
		t.Errorf("without context: %v", err)
	}

	mac, err := admin.HMAC(ctx, "my-key", plaintext)
	ok(t, err)
	again, err := admin.HMAC(ctx, "my-key", plaintext)
	ok(t, err)
	other, err := admin.HMAC(ctx, "my-key", associated)
	ok(t, err)
	if len(mac) != 32 || !bytes.Equal(mac, again) || bytes.Equal(mac, other) {
		t.Errorf("no HMAC: %x, %x, %x", mac, again, other)
	}

	ok(t, admin.DeleteKey(ctx, "my-key"))
	if _, err := admin.DescribeKey(ctx, "my-key"); !errors.Is(err, kes.ErrKeyNotFound) {
		t.Errorf("deleted, and yet: %v", err)
	}
}

func TestEmptyAndLargePlaintexts(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	ok(t, admin.CreateKey(ctx, "my-key"))
	for _, size := range []int{0, 1, 32, 500_000} {
		plaintext := bytes.Repeat([]byte{0xa5}, size)
		sealed, err := admin.Encrypt(ctx, "my-key", plaintext, nil)
		ok(t, err)
		opened, err := admin.Decrypt(ctx, "my-key", sealed, nil)
		ok(t, err)
		if !bytes.Equal(opened, plaintext) {
			t.Errorf("%d bytes came back otherwise", size)
		}
	}
}

func TestImportedKeysAreTheOnesImported(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	for name, cipher := range map[string]kes.KeyAlgorithm{"aes": kes.AES256, "chacha": kes.ChaCha20} {
		request := &kes.ImportKeyRequest{Key: bytes.Repeat([]byte{7}, 32), Cipher: cipher}
		ok(t, admin.ImportKey(ctx, name, request))
		ok(t, admin.ImportKey(ctx, name+"-copy", request))
		info, err := admin.DescribeKey(ctx, name)
		ok(t, err)
		if info.Algorithm != cipher {
			t.Errorf("imported for %v, described as %v", cipher, info.Algorithm)
		}
		sealed, err := admin.Encrypt(ctx, name, []byte("secret"), nil)
		ok(t, err)
		opened, err := admin.Decrypt(ctx, name+"-copy", sealed, nil)
		ok(t, err)
		if string(opened) != "secret" {
			t.Errorf("the copy is another key: %q", opened)
		}
		if err := admin.ImportKey(ctx, name, request); !errors.Is(err, kes.ErrKeyExists) {
			t.Errorf("imported twice: %v", err)
		}
	}
	err := admin.ImportKey(ctx, "short", &kes.ImportKeyRequest{Key: make([]byte, 31), Cipher: kes.AES256})
	wantStatus(t, err, 406, "invalid key size for 'AES256'")
}

func TestErrorsAreTheOnesThatClientsCompareWith(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	want := func(what string, err, expected error) {
		t.Helper()
		if !errors.Is(err, expected) {
			t.Errorf("%s: %v, and not: %v", what, err, expected)
		}
	}
	_, err := admin.DescribeKey(ctx, "missing")
	want("describe", err, kes.ErrKeyNotFound)
	_, err = admin.Encrypt(ctx, "missing", []byte("x"), nil)
	want("encrypt", err, kes.ErrKeyNotFound)
	_, err = admin.Decrypt(ctx, "missing", []byte("x"), nil)
	want("decrypt", err, kes.ErrKeyNotFound)
	_, err = admin.GenerateKey(ctx, "missing", nil)
	want("generate", err, kes.ErrKeyNotFound)
	_, err = admin.HMAC(ctx, "missing", []byte("x"))
	want("hmac", err, kes.ErrKeyNotFound)
	want("delete", admin.DeleteKey(ctx, "missing"), kes.ErrKeyNotFound)

	ok(t, admin.CreateKey(ctx, "my-key"))
	want("create", admin.CreateKey(ctx, "my-key"), kes.ErrKeyExists)

	sealed, err := admin.Encrypt(ctx, "my-key", []byte("x"), []byte("context"))
	ok(t, err)
	_, err = admin.Decrypt(ctx, "my-key", sealed, []byte("another"))
	want("another context", err, kes.ErrDecrypt)
	sealed[len(sealed)-1] ^= 1
	_, err = admin.Decrypt(ctx, "my-key", sealed, []byte("context"))
	want("a changed ciphertext", err, kes.ErrDecrypt)
	ok(t, admin.CreateKey(ctx, "other"))
	_, err = admin.Decrypt(ctx, "other", sealed, []byte("context"))
	want("another key", err, kes.ErrDecrypt)

	_, err = admin.DescribePolicy(ctx, "missing")
	want("policy", err, kes.ErrPolicyNotFound)
	_, err = admin.GetPolicy(ctx, "missing")
	want("policy", err, kes.ErrPolicyNotFound)
	_, err = admin.DescribeIdentity(ctx, newAPIKey(t).Identity())
	want("identity", err, kes.ErrIdentityNotFound)

	wantStatus(t, admin.CreateKey(ctx, "no-name-"), 400, "key name 'no-name-'")
}

// The error is one of the server, with this status and a message that begins so.
func wantStatus(t *testing.T, err error, status int, message string) {
	t.Helper()
	var answer kes.Error
	if !errors.As(err, &answer) || answer.Status() != status || !strings.HasPrefix(answer.Error(), message) {
		t.Errorf("%v, and not %d %s", err, status, message)
	}
}
