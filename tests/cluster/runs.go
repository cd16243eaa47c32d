package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Keys are deleted while every node encrypts with them, and nodes are paused or cut off.
func runDeletes(dir string) error {
	c, err := startCluster(dir, 3, "24h")
	if err != nil {
		return err
	}
	defer c.stop()
	r, next := newRecorder(), atomic.Int64{}
	var work sync.WaitGroup
	for range 8 {
		work.Add(1)
		go func() {
			defer work.Done()
			for n := next.Add(1); n <= int64(*deletes); n = next.Add(1) {
				c.deleteInUse(r, fmt.Sprintf("d-%d", n))
			}
		}()
	}
	over := make(chan struct{})
	go func() {
		work.Wait()
		close(over)
	}()
	counts := c.disturb(over)
	fmt.Printf("deletes: %d of keys in use\n", *deletes)
	return conclude(dir, r, counts)
}

// Pauses nodes and cuts them off until it is over.
func (c *cluster) disturb(over chan struct{}) map[string]int {
	counts := map[string]int{}
	for {
		select {
		case <-over:
			return counts
		case <-time.After(between(0, 2*time.Second)):
		}
		n, length := c.anyNode(), between(200*time.Millisecond, 4*time.Second)
		if rand.IntN(2) == 0 {
			counts["a node is paused"]++
			pause(&n.process, length)
		} else {
			counts["a node is cut off silently"]++
			n.cut(silent)
			time.Sleep(length)
			n.cut(open)
		}
	}
}

func (c *cluster) deleteInUse(r *recorder, name string) {
	for r.create(c.anyNode(), name, false).Outcome != OK {
		if r.status(c.anyNode(), name).Outcome == OK {
			break
		}
	}
	stop := make(chan struct{})
	var users sync.WaitGroup
	for _, n := range c.nodes {
		users.Add(1)
		go func() {
			defer users.Done()
			for {
				select {
				case <-stop:
					return
				case <-time.After(between(0, 20*time.Millisecond)):
				}
				if r.encrypt(n, name).Outcome == OK && rand.IntN(4) == 0 {
					r.decryptAny(c.anyNode(), name)
				}
			}
		}()
	}
	time.Sleep(between(0, 50*time.Millisecond))
	for {
		if came := r.delete(c.anyNode(), name).Outcome; came == OK || came == Absent {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, n := range c.nodes {
		r.encrypt(n, name)
	}
	close(stop)
	users.Wait()
}

// etcd is away for long: reads with keys in use go on.
func runOutage(dir string) error {
	c, err := startCluster(dir, 3, "24h")
	if err != nil {
		return err
	}
	defer c.stop()
	r := newRecorder()
	if came := r.create(c.nodes[0], "hot", false); came.Outcome != OK {
		return errors.New(came.Said)
	}
	for _, n := range c.nodes {
		r.encrypt(n, "hot")
	}
	for _, m := range c.etcd.members {
		m.end(syscall.SIGKILL)
	}
	reads, failed := 0, map[string]int{}
	for end := time.Now().Add(*length); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		n := c.nodes[reads%3]
		reads++
		op := r.encrypt(n, "hot")
		if op.Outcome == OK {
			op = r.decrypt(c.anyNode(), "hot", op.ID)
		}
		if op.Outcome != OK {
			failed[op.Said]++
		}
	}
	if r.create(c.nodes[0], "never", false).Outcome == OK {
		failed["a key was made without etcd"]++
	}
	for n := range c.etcd.members {
		if err := c.etcd.run(n); err != nil {
			return err
		}
	}
	if err := c.etcd.elected(); err != nil {
		return err
	}
	began := time.Now()
	if err := c.healed(); err != nil {
		return err
	}
	fmt.Printf("outage: %s, %d times encrypted and decrypted, %d failed; all nodes make changes %s after etcd does\n",
		*length, reads, len(failed), time.Since(began).Round(10*time.Millisecond))
	if len(failed) != 0 {
		return fmt.Errorf("reads failed: %v", failed)
	}
	return nil
}

// etcd is set back to a snapshot: every node notices, changes nothing, and serves what it has.
func runSetBack(dir string) error {
	c, err := startCluster(dir, 3, "24h")
	if err != nil {
		return err
	}
	defer c.stop()
	r, snapshot := newRecorder(), filepath.Join(dir, "snapshot")
	if _, err := c.etcd.ctlAt(c.etcd.addresses()[:1], "snapshot", "save", snapshot); err != nil {
		return err
	}
	var made []string
	for n := range 30 {
		name := fmt.Sprintf("after-%d", n)
		if r.create(c.nodes[n%3], name, false).Outcome == OK {
			made = append(made, name)
		}
	}
	for _, n := range c.nodes {
		r.status(n, made[len(made)-1])
	}
	if err := c.etcd.restore(snapshot); err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := eventually(fmt.Sprintf("node %d notices that etcd was set back, see %s", n.number, n.log), time.Minute, func() bool {
			op := r.create(n, fmt.Sprintf("fork-%d", time.Now().UnixNano()), false)
			return op.Outcome == Nothing && strings.Contains(op.Said, "set back")
		}); err != nil {
			return err
		}
		for _, name := range made {
			if op := r.encrypt(n, name); op.Outcome != OK {
				return fmt.Errorf("node %d does not encrypt with '%s': %s", n.number, name, op.Said)
			}
		}
	}
	for _, op := range r.ops {
		if op.Kind == Create && op.Outcome == OK && strings.HasPrefix(op.Name, "fork-") {
			return fmt.Errorf("node %d wrote '%s' into etcd after it was set back", op.Node, op.Name)
		}
	}
	fmt.Printf("set back by %d commits: all nodes have noticed, and encrypt with all %d keys\n", len(made), len(made))
	return nil
}
