package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Three members of etcd behind mutual TLS.
type etcd struct {
	dir     string
	data    string
	members []*member
}

type member struct {
	process
	address string
	among   string
}

func startEtcd(dir string) (*etcd, error) {
	e := &etcd{dir: dir, data: "data"}
	for n := range 3 {
		e.members = append(e.members, &member{address: freeAddress(), among: freeAddress(), process: process{log: filepath.Join(dir, fmt.Sprintf("etcd-%d.log", n))}})
	}
	for n := range e.members {
		if err := e.run(n); err != nil {
			return nil, err
		}
	}
	return e, e.elected()
}

func (e *etcd) elected() error {
	return eventually("a leader is elected", 2*time.Minute, func() bool {
		_, err := e.ctl("get", "nothing")
		return err == nil
	})
}

func (e *etcd) initial() string {
	var all []string
	for n, m := range e.members {
		all = append(all, fmt.Sprintf("m%d=http://%s", n, m.among))
	}
	return strings.Join(all, ",")
}

func (e *etcd) dataOf(n int) string { return filepath.Join(e.dir, fmt.Sprintf("%s-%d", e.data, n)) }

// Starts a member. It goes on with what it has.
func (e *etcd) run(n int, more ...string) error {
	m := e.members[n]
	return m.start(nil, "etcd", append([]string{
		fmt.Sprintf("--name=m%d", n),
		"--data-dir=" + e.dataOf(n),
		"--listen-client-urls=https://" + m.address,
		"--advertise-client-urls=https://" + m.address,
		"--listen-peer-urls=http://" + m.among,
		"--initial-advertise-peer-urls=http://" + m.among,
		"--initial-cluster=" + e.initial(),
		"--initial-cluster-token=" + e.dir,
		"--cert-file=" + certificate("server.crt"),
		"--key-file=" + certificate("server.key"),
		"--trusted-ca-file=" + certificate("ca.crt"),
		"--client-cert-auth",
		"--enable-grpc-gateway=false",
	}, more...)...)
}

// Runs etcdctl at these members; none: at all of them.
func (e *etcd) ctl(args ...string) (string, error) { return e.ctlAt(e.addresses(), args...) }

func (e *etcd) addresses() []string {
	var all []string
	for _, m := range e.members {
		all = append(all, "https://"+m.address)
	}
	return all
}

func (e *etcd) ctlAt(addresses []string, args ...string) (string, error) {
	command := exec.Command("etcdctl", append([]string{
		"--endpoints", strings.Join(addresses, ","), "--command-timeout=3s", "--dial-timeout=2s",
		"--cacert", certificate("ca.crt"), "--cert", certificate("admin.crt"), "--key", certificate("admin.key"),
	}, args...)...)
	command.Env = append(command.Environ(), "ETCDCTL_API=3")
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("etcdctl %v: %w: %s", args, err, output)
	}
	return string(output), nil
}

// What a member says of itself.
type standing struct {
	Status struct {
		Header struct {
			MemberID uint64 `json:"member_id"`
			Revision int64  `json:"revision"`
		} `json:"header"`
		Leader uint64 `json:"leader"`
	}
}

func (e *etcd) standing(n int) (standing, error) {
	var all []standing
	said, err := e.ctlAt([]string{"https://" + e.members[n].address}, "endpoint", "status", "-w", "json")
	if err == nil {
		err = json.Unmarshal([]byte(said), &all)
	}
	if err != nil || len(all) == 0 {
		return standing{}, fmt.Errorf("no status of member %d: %w", n, err)
	}
	return all[0], nil
}

// The member that leads.
func (e *etcd) leader() (int, error) {
	found := -1
	err := eventually("one of the members leads", 2*time.Minute, func() bool {
		for n, m := range e.members {
			if !m.runs() {
				continue
			}
			said, err := e.standing(n)
			if err == nil && said.Status.Leader == said.Status.Header.MemberID {
				found = n
				return true
			}
		}
		return false
	})
	return found, err
}

// Compacts all history.
func (e *etcd) compact() error {
	leader, err := e.leader()
	if err != nil {
		return err
	}
	said, err := e.standing(leader)
	if err != nil {
		return err
	}
	_, err = e.ctl("compact", fmt.Sprint(said.Status.Header.Revision))
	return err
}

// Lets a member come back with less space than it uses: it raises the alarm at the next write, and all members refuse
// writes.
func (e *etcd) fill(n int) error {
	e.members[n].end(syscall.SIGKILL)
	if err := e.run(n, "--quota-backend-bytes=10000"); err != nil {
		return err
	}
	return eventually("there is no space left", 2*time.Minute, func() bool {
		e.ctlAt([]string{"https://" + e.members[n].address}, "put", "one", "more")
		said, err := e.ctl("alarm", "list")
		return err == nil && strings.Contains(said, "NOSPACE")
	})
}

// Gives it the space back.
func (e *etcd) empty(n int) error {
	e.members[n].end(syscall.SIGKILL)
	if err := e.run(n); err != nil {
		return err
	}
	return eventually("the alarm ends", 2*time.Minute, func() bool {
		_, err := e.ctl("alarm", "disarm")
		said, listed := e.ctl("alarm", "list")
		return err == nil && listed == nil && !strings.Contains(said, "NOSPACE")
	})
}

// Sets all members back to a snapshot that `snapshot save` has made.
func (e *etcd) restore(snapshot string) error {
	for _, m := range e.members {
		m.end(syscall.SIGKILL)
	}
	e.data = "restored"
	for n, m := range e.members {
		if _, err := e.ctl("snapshot", "restore", snapshot, fmt.Sprintf("--name=m%d", n), "--data-dir="+e.dataOf(n),
			"--initial-cluster="+e.initial(), "--initial-cluster-token="+e.dir,
			"--initial-advertise-peer-urls=http://"+m.among); err != nil {
			return err
		}
	}
	for n := range e.members {
		if err := e.run(n); err != nil {
			return err
		}
	}
	return e.elected()
}
