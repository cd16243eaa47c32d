package main

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// What goes wrong, by name. Each ends with everything whole again.
type fault struct {
	name   string
	inject func(*cluster) error
}

func between(from, to time.Duration) time.Duration { return from + rand.N(to-from) }

func (c *cluster) anyNode() *node { return c.nodes[rand.IntN(len(c.nodes))] }

func (c *cluster) anyMember() *member { return c.etcd.members[rand.IntN(len(c.etcd.members))] }

func pause(p *process, length time.Duration) {
	p.signal(syscall.SIGSTOP)
	time.Sleep(length)
	p.signal(syscall.SIGCONT)
}

func (c *cluster) cutNode(state edge) error {
	n := c.anyNode()
	n.cut(state)
	time.Sleep(between(time.Second, 15*time.Second))
	n.cut(open)
	return nil
}

var short = []fault{
	{"a node is killed", func(c *cluster) error {
		n := c.anyNode()
		n.end(syscall.SIGKILL)
		time.Sleep(between(0, 3*time.Second))
		return n.restart()
	}},
	{"a node is paused", func(c *cluster) error {
		pause(&c.anyNode().process, between(200*time.Millisecond, 4*time.Second))
		return nil
	}},
	{"the leader of etcd is killed", func(c *cluster) error {
		leader, err := c.etcd.leader()
		if err != nil {
			return err
		}
		c.etcd.members[leader].end(syscall.SIGKILL)
		time.Sleep(between(time.Second, 4*time.Second))
		return c.etcd.run(leader)
	}},
	{"a member of etcd is paused", func(c *cluster) error {
		pause(&c.anyMember().process, between(500*time.Millisecond, 5*time.Second))
		return nil
	}},
}

var more = []fault{
	{"a node is cut off, connections refused", func(c *cluster) error { return c.cutNode(refused) }},
	{"a node is cut off silently", func(c *cluster) error { return c.cutNode(silent) }},
	{"a node loses one member of etcd silently", func(c *cluster) error {
		edge := c.anyNode().edges[rand.IntN(3)]
		edge.set(silent)
		time.Sleep(between(time.Second, 10*time.Second))
		edge.set(open)
		return nil
	}},
	{"two members of etcd are paused", func(c *cluster) error {
		spared := rand.IntN(3)
		for n, m := range c.etcd.members {
			if n != spared {
				m.signal(syscall.SIGSTOP)
			}
		}
		time.Sleep(between(time.Second, 8*time.Second))
		for _, m := range c.etcd.members {
			m.signal(syscall.SIGCONT)
		}
		return c.etcd.elected()
	}},
	{"compaction under a node that is cut off", func(c *cluster) error {
		n := c.anyNode()
		n.cut(silent)
		defer n.cut(open)
		time.Sleep(between(3*time.Second, 6*time.Second))
		return c.etcd.compact()
	}},
	{"etcd has no space", func(c *cluster) error {
		member := rand.IntN(3)
		if err := c.etcd.fill(member); err != nil {
			return err
		}
		time.Sleep(between(time.Second, 6*time.Second))
		return c.etcd.empty(member)
	}},
	{"a clock is an hour off", func(c *cluster) error {
		n := c.anyNode()
		n.end(syscall.SIGTERM)
		library, err := fakeTime()
		if err != nil {
			return err
		}
		n.env = []string{"LD_PRELOAD=" + library, "FAKETIME=" + []string{"+1h", "-1h"}[rand.IntN(2)], "DONT_FAKE_MONOTONIC=1"}
		if err := n.restart(); err != nil {
			return err
		}
		time.Sleep(between(3*time.Second, 8*time.Second))
		n.env = nil
		return n.restart()
	}},
	{"a member of etcd has a slow disk", func(c *cluster) error {
		slow := exec.Command("timeout", "-s", "INT", strconv.Itoa(2+rand.IntN(5)), "strace", "-f", "-qq", "-o", "/dev/null",
			"-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=200000", "-p", strconv.Itoa(c.anyMember().pid()))
		// It is ended by the time.
		err := slow.Run()
		if slow.ProcessState.ExitCode() == 124 {
			return nil
		}
		return fmt.Errorf("strace: %w", err)
	}},
}

// The library that changes a program's clock.
func fakeTime() (string, error) {
	said, err := exec.Command("sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1").Output()
	if err != nil {
		return "", fmt.Errorf("this needs the Debian package libfaketime: %w", err)
	}
	return string(said[:len(said)-1]), nil
}

// Injects one after the other until the time is over; each at least once. Returns how often which.
func inject(c *cluster, faults []fault, length time.Duration) (map[string]int, error) {
	counts, end := map[string]int{}, time.Now().Add(length)
	// What would hardly begin is left out.
	for first := true; first || time.Until(end) > 15*time.Second; first = false {
		for _, n := range rand.Perm(len(faults)) {
			if !first && time.Now().After(end) {
				break
			}
			time.Sleep(between(time.Second, 4*time.Second))
			fmt.Printf("%s %s\n", time.Now().Format("15:04:05"), faults[n].name)
			if err := faults[n].inject(c); err != nil {
				return counts, fmt.Errorf("%s: %w", faults[n].name, err)
			}
			counts[faults[n].name]++
		}
	}
	time.Sleep(time.Until(end))
	return counts, nil
}
