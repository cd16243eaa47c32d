package main

import (
	"net"
	"sync"
)

// How one node reaches one member of etcd.
type proxy struct {
	address, to string
	mu          sync.Mutex
	changed     *sync.Cond
	state       edge
	listener    net.Listener
	connections map[net.Conn]bool
}

type edge int

const (
	open edge = iota
	// Connections are closed and refused.
	refused
	// Connections stay, and nothing passes.
	silent
)

func startProxy(to string) (*proxy, error) {
	p := &proxy{address: freeAddress(), to: to, connections: map[net.Conn]bool{}}
	p.changed = sync.NewCond(&p.mu)
	return p, p.listen()
}

func (p *proxy) listen() error {
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return err
	}
	p.listener = listener
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(connection)
		}
	}()
	return nil
}

// Changes what passes.
func (p *proxy) set(state edge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state == p.state {
		return
	}
	if p.state == refused {
		// Nobody else takes this port.
		for p.listen() != nil {
		}
	}
	p.state = state
	if state == refused {
		p.listener.Close()
		for connection := range p.connections {
			connection.Close()
		}
	}
	p.changed.Broadcast()
}

// Waits while nothing passes.
func (p *proxy) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.state == silent {
		p.changed.Wait()
	}
}

func (p *proxy) serve(client net.Conn) {
	p.pass()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	if p.state == refused {
		p.mu.Unlock()
		client.Close()
		server.Close()
		return
	}
	p.connections[client], p.connections[server] = true, true
	p.mu.Unlock()
	go p.copy(client, server)
	p.copy(server, client)
}

func (p *proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		read, err := from.Read(buffer)
		p.pass()
		if err == nil {
			_, err = to.Write(buffer[:read])
		}
		if err != nil {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.connections, from)
	to.Close()
	from.Close()
}
