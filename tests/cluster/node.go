package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"aead.dev/mtls"
	"github.com/minio/kms-go/kms"
)

// The HSM key of all nodes.
const hsm = "MINIO_KMS_HSM_KEY=hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio="

const enclave = "tenant"

// Nodes over one etcd, each behind proxies of its own.
type cluster struct {
	dir   string
	etcd  *etcd
	nodes []*node
}

type node struct {
	process
	number  int
	address string
	config  string
	data    string
	edges   []*proxy
	client  *kms.Client
	// More of its environment.
	env []string
}

func binary() string {
	path := os.Getenv("CLAVIGER")
	if path == "" {
		panic("CLAVIGER does not name the built program")
	}
	return path
}

// Starts etcd and so many nodes in a directory.
func startCluster(dir string, count int, staleReads string) (*cluster, error) {
	members, err := startEtcd(dir)
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, etcd: members}
	admin := exec.Command(binary(), "kms", "identity", "--admin")
	admin.Env = append(os.Environ(), hsm)
	said, err := admin.Output()
	if err != nil {
		return nil, fmt.Errorf("the key of the administrator: %w", err)
	}
	for n := range count {
		if err := c.add(n, staleReads, string(said)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c, c.nodes[0].client.CreateEnclave(ctx, &kms.CreateEnclaveRequest{Name: enclave})
}

func (c *cluster) add(n int, staleReads, admin string) error {
	name := filepath.Join(c.dir, fmt.Sprintf("node-%d", n))
	added := &node{number: n, address: freeAddress(), config: name + ".yml", data: name, process: process{log: name + ".log"}}
	var endpoints []string
	for _, m := range c.etcd.members {
		edge, err := startProxy(m.address)
		if err != nil {
			return err
		}
		added.edges = append(added.edges, edge)
		endpoints = append(endpoints, "https://"+edge.address)
	}
	config, err := json.Marshal(map[string]any{
		"version": "v1",
		"cluster": map[string]any{
			"etcd": map[string]any{
				"endpoints": endpoints,
				"prefix":    "history/",
				"tls":       map[string]string{"ca": certificate("ca.crt"), "cert": certificate("app.crt"), "key": certificate("app.key")},
			},
			"stale_reads": staleReads,
		},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(added.config, config, 0o600); err != nil {
		return err
	}
	if added.client, err = added.connect(admin); err != nil {
		return err
	}
	c.nodes = append(c.nodes, added)
	if err := added.run(); err != nil {
		return err
	}
	return added.up(2 * time.Minute)
}

func (n *node) connect(said string) (*kms.Client, error) {
	var key string
	for _, word := range strings.Fields(said) {
		if strings.HasPrefix(word, "k1:") {
			key = word
		}
	}
	parsed, err := mtls.ParsePrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("the key of the administrator: %w", err)
	}
	return kms.NewClient(&kms.Config{
		Endpoints: []string{n.address},
		APIKey:    parsed,
		// Each node makes a certificate of its own.
		TLS: &tls.Config{InsecureSkipVerify: true},
	})
}

// Starts the node.
func (n *node) run() error {
	host := fmt.Sprintf("node-%d:7373", n.number)
	return n.start(append([]string{hsm}, n.env...), binary(), "kms", "server", n.data, "--address", n.address, "--host", host, "--config", n.config)
}

// Waits until it takes connections.
func (n *node) up(limit time.Duration) error {
	return eventually(fmt.Sprintf("node %d is up, see %s", n.number, n.log), limit, func() bool { return accepts(n.address) })
}

func (n *node) restart() error {
	n.end(syscall.SIGKILL)
	if err := n.run(); err != nil {
		return err
	}
	return n.up(2 * time.Minute)
}

// Changes what passes between this node and etcd.
func (n *node) cut(state edge) {
	for _, edge := range n.edges {
		edge.set(state)
	}
}

// Ends everything.
func (c *cluster) stop() {
	for _, n := range c.nodes {
		n.cut(open)
		n.signal(syscall.SIGCONT)
		n.end(syscall.SIGTERM)
	}
	for _, m := range c.etcd.members {
		m.signal(syscall.SIGCONT)
		m.end(syscall.SIGKILL)
	}
}
