package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/minio/kms-go/kms"
	"github.com/minio/kms-go/kms/cmds"
	openbao "github.com/openbao/openbao/api/v2"
	"gocloud.dev/secrets"
	_ "gocloud.dev/secrets/hashivault"

	"aead.dev/mtls"
	"crypto/rand"
)

// A key manager with a Vault-compatible listener, and a user who may do everything with keys.
type vaultDoor struct {
	*keyManager
	vault string
	user  mtls.PrivateKey
}

const vaultConfig = `
version: v1
tls: { certs: [ { key: %KEY%, cert: %CERT% } ] }
vault: { address: '127.0.0.1:0', enclave: tenant, kv: secret, token_ttl: 4s }
`

const vaultHSM = "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio="

func startVault(t *testing.T) *vaultDoor {
	t.Helper()
	dir := t.TempDir()
	text := strings.NewReplacer("%KEY%", certificate(t, "server.key"), "%CERT%", certificate(t, "server.crt")).Replace(vaultConfig)
	file := filepath.Join(dir, "kms.yml")
	done(t, os.WriteFile(file, []byte(text), 0o600))
	process := exec.Command(binary(t), "kms", "server", filepath.Join(dir, "data"), "--address", "127.0.0.1:0", "--config", file)
	process.Env = append(os.Environ(), "MINIO_KMS_HSM_KEY="+vaultHSM)
	stderr := must(process.StderrPipe())(t)
	done(t, process.Start())
	t.Cleanup(func() {
		process.Process.Kill()
		process.Wait()
	})
	d := &vaultDoor{keyManager: &keyManager{server: &server{dir: dir}}}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		line := lines.Text()
		if at, found := strings.CutPrefix(line, "Host"); found {
			d.endpoint = strings.TrimPrefix(strings.TrimSpace(at), "https://")
		}
		if at, found := strings.CutPrefix(line, "Vault API"); found {
			d.vault = strings.TrimSpace(at)
		}
		if strings.HasPrefix(line, "=> Server is up") {
			break
		}
	}
	go func() {
		for lines.Scan() {
		}
	}()
	admin := exec.Command(binary(t), "kms", "identity", "--admin", "--json")
	admin.Env = process.Env
	shown := must(admin.Output())(t)
	_, rest, _ := strings.Cut(string(shown), `"api_key":"`)
	key, _, _ := strings.Cut(rest, `"`)
	d.exports = map[string]string{"MINIO_KMS_API_KEY": key, "SSL_CERT_FILE": certificate(t, "ca.crt")}

	ctx, root := context.Background(), d.root(t)
	user := must(mtls.GenerateKeyEdDSA(rand.Reader))(t)
	d.user = user
	done(t, root.CreateEnclave(ctx, &kms.CreateEnclaveRequest{Name: "tenant"}))
	all := map[cmds.Command]kms.RuleSet{}
	for _, command := range []cmds.Command{cmds.KeyCreate, cmds.KeyDelete, cmds.KeyStatus, cmds.KeyEncrypt, cmds.KeyDecrypt, cmds.KeyGenerate, cmds.KeyList} {
		all[command] = kms.RuleSet{"*": {}}
	}
	done(t, root.CreatePolicy(ctx, "tenant", &kms.CreatePolicyRequest{Name: "all", Allow: all}))
	done(t, root.CreateIdentity(ctx, "tenant", &kms.CreateIdentityRequest{Identity: user.Identity(), Privilege: kms.User}))
	done(t, root.AssignPolicy(ctx, "tenant", &kms.AssignPolicyRequest{Identity: user.Identity(), Policy: "all"}))
	return d
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestVaultClientUsesTransitAndReadsErrors(t *testing.T) {
	d := startVault(t)
	config := api.DefaultConfig()
	config.Address = d.vault
	done(t, config.ConfigureTLS(&api.TLSConfig{CACert: certificate(t, "ca.crt")}))
	client := must(api.NewClient(config))(t)
	health := must(client.Sys().Health())(t)
	if !health.Initialized || health.Sealed || health.Standby {
		t.Fatalf("%+v", health)
	}
	must(client.Sys().SealStatus())(t)
	must(client.Sys().Leader())(t)
	client.SetToken(d.user.String())
	self := must(client.Auth().Token().LookupSelf())(t)
	if ttl := must(self.TokenTTL())(t); ttl != 0 {
		t.Fatal("an API key does not end", ttl)
	}
	logical := client.Logical()
	missing, err := logical.Read("transit/keys/k")
	if missing != nil || err != nil {
		t.Fatal("not there is no error", missing, err)
	}
	must(logical.Write("transit/keys/k", nil))(t)
	key := must(logical.Read("transit/keys/k"))(t)
	if key.Data["type"] != "aes256-gcm96" {
		t.Fatal(key.Data)
	}
	sealed := must(logical.Write("transit/encrypt/k", map[string]any{"plaintext": encode("hello")}))(t)
	opened := must(logical.Write("transit/decrypt/k", map[string]any{"ciphertext": sealed.Data["ciphertext"]}))(t)
	if opened.Data["plaintext"] != encode("hello") {
		t.Fatal(opened.Data)
	}
	_, err = logical.Write("transit/encrypt/none", map[string]any{"plaintext": encode("hello")})
	if response, is := err.(*api.ResponseError); !is || response.StatusCode != 400 || response.Errors[0] != "encryption key not found" {
		t.Fatal(err)
	}
	list := must(logical.List("transit/keys"))(t)
	if keys := list.Data["keys"].([]any); len(keys) != 1 || keys[0] != "k" {
		t.Fatal(list.Data)
	}
	capabilities := must(client.Sys().CapabilitiesSelf("transit/encrypt/k"))(t)
	if len(capabilities) != 1 || capabilities[0] != "update" {
		t.Fatal(capabilities)
	}
	client.SetToken("wrong")
	_, err = logical.Read("transit/keys/k")
	if response, is := err.(*api.ResponseError); !is || response.StatusCode != 403 {
		t.Fatal(err)
	}
}

func TestVaultClientLogsInAndItsWatcherKeepsTheSession(t *testing.T) {
	d := startVault(t)
	config := api.DefaultConfig()
	config.Address = d.vault
	done(t, config.ConfigureTLS(&api.TLSConfig{CACert: certificate(t, "ca.crt")}))
	client := must(api.NewClient(config))(t)
	pair := map[string]any{"role_id": d.user.Identity().String(), "secret_id": d.user.String()}
	login := must(client.Logical().Write("auth/approle/login", pair))(t)
	client.SetToken(login.Auth.ClientToken)
	watcher := must(client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: login}))(t)
	go watcher.Start()
	defer watcher.Stop()
	renewed := 0
	timeout := time.After(patience)
	for renewed < 3 {
		select {
		case <-watcher.RenewCh():
			renewed++
		case err := <-watcher.DoneCh():
			t.Fatal("the watcher gave up", err)
		case <-timeout:
			t.Fatal("no renewal")
		}
	}
	must(client.Logical().Write("transit/keys/k", nil))(t)
	done(t, client.Auth().Token().RevokeSelf(""))
	if _, err := client.Logical().Read("transit/keys/k"); err == nil {
		t.Fatal("the session was revoked")
	}
}

func TestOpenBaoClientUsesACertificateAndANamespace(t *testing.T) {
	d := startVault(t)
	config := openbao.DefaultConfig()
	config.Address = d.vault
	dir := t.TempDir()
	made := exec.Command(binary(t), "kms", "identity", d.user.String(), "--key", filepath.Join(dir, "c.key"), "--cert", filepath.Join(dir, "c.crt"))
	if output, err := made.CombinedOutput(); err != nil {
		t.Fatal(string(output), err)
	}
	done(t, config.ConfigureTLS(&openbao.TLSConfig{
		CACert:     certificate(t, "ca.crt"),
		ClientCert: filepath.Join(dir, "c.crt"),
		ClientKey:  filepath.Join(dir, "c.key"),
	}))
	client := must(openbao.NewClient(config))(t)
	client.ClearToken()
	client.SetNamespace("tenant")
	logical := client.Logical()
	must(logical.Write("transit/keys/k", map[string]any{"type": "chacha20-poly1305", "derived": true}))(t)
	body := map[string]any{"context": encode("context"), "bits": 256}
	made2 := must(logical.Write("transit/datakey/plaintext/k", body))(t)
	opened := must(logical.Write("transit/decrypt/k", map[string]any{"ciphertext": made2.Data["ciphertext"], "context": encode("context")}))(t)
	if opened.Data["plaintext"] != made2.Data["plaintext"] {
		t.Fatal(opened.Data)
	}
	client.SetNamespace("nowhere")
	if _, err := logical.Read("transit/keys/k"); err == nil {
		t.Fatal("there is no such enclave")
	}
}

// What SFTPGo and others use.
func TestGoCloudKeeperEncryptsAndDecrypts(t *testing.T) {
	d := startVault(t)
	client := d.withToken(t)
	must(client.Logical().Write("transit/keys/cdk", nil))(t)
	t.Setenv("VAULT_SERVER_URL", d.vault)
	t.Setenv("VAULT_SERVER_TOKEN", d.user.String())
	t.Setenv("VAULT_CACERT", certificate(t, "ca.crt"))
	ctx := context.Background()
	keeper := must(secrets.OpenKeeper(ctx, "hashivault://cdk"))(t)
	defer keeper.Close()
	sealed := must(keeper.Encrypt(ctx, []byte("message")))(t)
	opened := must(keeper.Decrypt(ctx, sealed))(t)
	if !bytes.Equal(opened, []byte("message")) {
		t.Fatal(opened)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Add(1)
		go func() {
			defer all.Done()
			if _, err := keeper.Decrypt(ctx, sealed); err != nil {
				t.Error(err)
			}
		}()
	}
	all.Wait()
}

func (d *vaultDoor) withToken(t *testing.T) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	config.Address = d.vault
	done(t, config.ConfigureTLS(&api.TLSConfig{CACert: certificate(t, "ca.crt")}))
	client := must(api.NewClient(config))(t)
	client.SetToken(d.user.String())
	return client
}
