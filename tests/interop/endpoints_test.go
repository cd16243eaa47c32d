package interop

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/minio/kms-go/kes"
)

// Starts servers that have the same admin and the same key, "my-key".
func startReplicas(t *testing.T, n int) []*server {
	t.Helper()
	admin, app := newAPIKey(t), newAPIKey(t)
	key := &kes.ImportKeyRequest{Key: bytes.Repeat([]byte{9}, 32), Cipher: kes.AES256}
	var replicas []*server
	for range n {
		replica := startServerOf(t, admin, app)
		ok(t, replica.as(t, admin).ImportKey(testContext(t), "my-key", key))
		replicas = append(replicas, replica)
	}
	return replicas
}

func clientOf(t *testing.T, replicas []*server) *kes.Client {
	t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: tlsConfig(t, replicas[0].admin)}
	client := &kes.Client{HTTPClient: http.Client{Transport: transport}}
	for _, replica := range replicas {
		client.Endpoints = append(client.Endpoints, replica.endpoint)
	}
	return client
}

// Asks from several goroutines at once; what is sealed by one server is opened by any.
func load(ctx context.Context, client *kes.Client, requests int) error {
	const workers = 4
	errs := make(chan error, workers)
	var running sync.WaitGroup
	for range workers {
		running.Add(1)
		go func() {
			defer running.Done()
			for range requests / workers {
				dek, err := client.GenerateKey(ctx, "my-key", nil)
				if err == nil {
					_, err = client.Decrypt(ctx, "my-key", dek.Ciphertext, nil)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	running.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}

// The SDK stays with one endpoint for as long as that answers.
func TestLoadOutlivesItsServer(t *testing.T) {
	replicas, ctx := startReplicas(t, 3), testContext(t)
	client := clientOf(t, replicas)
	for len(replicas) > 1 {
		ok(t, load(ctx, client, 100))
		busy := busiest(t, replicas)
		done := make(chan error)
		go func() { done <- load(ctx, client, 2_000) }()
		replicas[busy].stop(t)
		ok(t, <-done)
		replicas = slices.Delete(replicas, busy, busy+1)
	}
	if answered(t, replicas[0]) < 100 {
		t.Error("the last server had no part in it")
	}
}

// How many requests a server has answered.
func answered(t *testing.T, s *server) uint64 {
	t.Helper()
	metrics, err := s.as(t, s.admin).Metrics(testContext(t))
	ok(t, err)
	if metrics.RequestErr+metrics.RequestFail != 0 {
		t.Errorf("%s: %+v", s.endpoint, metrics)
	}
	return metrics.RequestOK
}

func busiest(t *testing.T, replicas []*server) int {
	t.Helper()
	most := 0
	for i, replica := range replicas {
		if answered(t, replica) > answered(t, replicas[most]) {
			most = i
		}
	}
	return most
}

func TestNobodyAnswers(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	client := clientOf(t, []*server{s})
	s.stop(t)
	_, err := client.Status(ctx)
	if _, is := kes.IsConnError(err); !is {
		t.Errorf("not an error of the connection: %v", err)
	}
}
