package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/minio/kms-go/kms"
	"github.com/minio/kms-go/kms/cmds"
)

// How many keys are made in a request: fewer than a transaction of etcd takes.
const together = 100

// Speed, from one node and from three.
func runMeasure(dir string) error {
	c, err := startCluster(dir, 3, "24h")
	if err != nil {
		return err
	}
	defer c.stop()
	r := newRecorder()
	var writes, reads []time.Duration
	for n := range 300 {
		name := fmt.Sprintf("one-%d", n)
		op := r.create(c.nodes[0], name, false)
		if op.Outcome != OK {
			return errors.New(op.Said)
		}
		writes = append(writes, time.Duration(op.Return-op.Invoke))
		op = r.status(c.nodes[1], name)
		if op.Outcome != OK {
			return fmt.Errorf("'%s' was made and is not there: %s", name, op.Said)
		}
		reads = append(reads, time.Duration(op.Return-op.Invoke))
	}
	fmt.Printf("one client, a write: %s\none client, a confirmed read at another node: %s\n", percentiles(writes), percentiles(reads))
	for _, nodes := range [][]*node{c.nodes[:1], c.nodes} {
		if err := c.measureWrites(fmt.Sprintf("w%d", len(nodes)), nodes); err != nil {
			return err
		}
	}
	return c.measureLoad()
}

// 64 clients make single keys for ten seconds.
func (c *cluster) measureWrites(prefix string, nodes []*node) error {
	r, end := newRecorder(), time.Now().Add(10*time.Second)
	before, err := c.commits()
	if err != nil {
		return err
	}
	var clients sync.WaitGroup
	for client := range 64 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for n := 0; time.Now().Before(end); n++ {
				r.create(nodes[client%len(nodes)], fmt.Sprintf("%s-%d-%d", prefix, client, n), false)
			}
		}()
	}
	clients.Wait()
	after, err := c.commits()
	if err != nil {
		return err
	}
	took := time.Duration(r.now())
	result := r.judge(c.dir)
	by := map[int]int{}
	for _, op := range r.ops {
		if op.Outcome == OK {
			by[op.Node]++
		}
	}
	fmt.Printf("64 clients at %d nodes: %.0f transactions of etcd and %.0f keys a second, by node %v; a write: %s\n", len(nodes),
		float64(after-before)/took.Seconds(), float64(len(result.writes))/took.Seconds(), by, percentiles(result.writes))
	return nil
}

// The revision of etcd, which grows by one with each transaction.
func (c *cluster) commits() (int64, error) {
	said, err := c.etcd.standing(0)
	return said.Status.Header.Revision, err
}

// Many keys: how fast they are made, a node starts with them, and another one comes with nothing.
func (c *cluster) measureLoad() error {
	var next atomic.Int64
	var failure atomic.Pointer[error]
	var clients sync.WaitGroup
	began := time.Now()
	for client := range 3 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for first := next.Add(together) - together; first < int64(*keys) && failure.Load() == nil; first = next.Add(together) - together {
				if err := c.nodes[client%3].createMany(int(first)); err != nil {
					failure.Store(&err)
				}
			}
		}()
	}
	clients.Wait()
	if err := failure.Load(); err != nil {
		return *err
	}
	took := time.Since(began)
	fmt.Printf("%d keys in requests of %d at three nodes: %s, %.0f a second\n", *keys, together, took.Round(10*time.Millisecond), float64(*keys)/took.Seconds())
	r, last := newRecorder(), fmt.Sprintf("load-%d", *keys-1)
	n := c.nodes[2]
	n.end(syscall.SIGTERM)
	for _, with := range []string{"its file", "nothing but etcd"} {
		if with != "its file" {
			n.end(syscall.SIGTERM)
			if err := os.Rename(n.data, filepath.Join(c.dir, "old")); err != nil {
				return err
			}
		}
		began := time.Now()
		if err := n.run(); err != nil {
			return err
		}
		if err := n.up(10 * time.Minute); err != nil {
			return err
		}
		listens := time.Since(began)
		if op := r.encrypt(n, last); op.Outcome != OK {
			return fmt.Errorf("'%s' is not there: %s", last, op.Said)
		}
		fmt.Printf("start with %s: listens after %s, encrypts with the last key after %s; memory %s\n", with,
			listens.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond), n.memory())
	}
	return nil
}

// The memory of a process, as the system tells it.
func (p *process) memory() string {
	file, err := os.Open(fmt.Sprintf("/proc/%d/statm", p.pid()))
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	var size, resident int64
	fmt.Fscan(file, &size, &resident)
	return fmt.Sprintf("%d MiB", resident*int64(os.Getpagesize())>>20)
}

// Makes keys in one request.
func (n *node) createMany(first int) error {
	var body []byte
	for k := first; k < min(first+together, *keys); k++ {
		var err error
		if body, err = cmds.Encode(body, cmds.KeyCreate, &kms.CreateKeyRequest{Name: fmt.Sprintf("load-%d", k)}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	reply, err := n.client.Send(ctx, &kms.Request{Enclave: enclave, Body: body})
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	_, err = io.Copy(io.Discard, reply.Body)
	return err
}
