package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A program that we started. It does not outlive us.
type process struct {
	mu      sync.Mutex
	command *exec.Cmd
	ended   chan struct{}
	log     string
}

// Programs end with the thread that started them. This one lives as long as we do.
var starter = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starter {
			start()
		}
	}()
}

// Starts a program in a process group of its own, which writes to a log.
func (p *process) start(env []string, name string, args ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(name, args...)
	command.Env = append(os.Environ(), env...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	starter <- func() { started <- command.Start() }
	if err := <-started; err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		command.Wait()
		close(ended)
	}()
	p.command, p.ended = command, ended
	return nil
}

// Sends a signal to the program.
func (p *process) signal(signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.command != nil {
		p.command.Process.Signal(signal)
	}
}

// Whether it has been started and has not ended.
func (p *process) runs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.command == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Ends it with a signal and waits for that.
func (p *process) end(signal syscall.Signal) {
	p.signal(signal)
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended == nil {
		return
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		p.signal(syscall.SIGKILL)
		<-ended
	}
}

func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.command.Process.Pid
}

var nextPort atomic.Int64

// An address on which nobody listens, below the ports that the system gives to clients.
func freeAddress() string {
	for {
		port := 10_000 + (int64(os.Getpid())*97+nextPort.Add(1))%20_000
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
}

// Waits until something is so.
func eventually(what string, limit time.Duration, isSo func() bool) error {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if isSo() {
			return nil
		}
	}
	return errors.New("it did not happen in " + limit.String() + ": " + what)
}

// The root of the repository, where this was started.
var repository = sync.OnceValue(func() string {
	directory, err := os.Getwd()
	for err == nil && directory != "/" {
		if _, missing := os.Stat(filepath.Join(directory, "certs", "ca.crt")); missing == nil {
			return directory
		}
		directory = filepath.Dir(directory)
	}
	panic("this runs inside the repository")
})

// A development certificate.
func certificate(file string) string { return filepath.Join(repository(), "certs", file) }

func accepts(address string) bool {
	connection, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		connection.Close()
	}
	return err == nil
}
