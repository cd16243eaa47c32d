package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// control is what a test may change while the stub runs:
//
//	POST   /_clouds/fault     {"method","path","status","headers","body","times","delay_ms","drop","after"}: the next requests with
//	                          this in their path (at its end where it is followed by "$") get this answer; "drop" breaks the connection, "after" does what was asked for first
//	POST   /_clouds/deny      {"what","who"}: takes a right away from a principal, or from all ("*")
//	POST   /_clouds/clock     {"offset"}: seconds that the clock is ahead, for all that expires
//	POST   /_clouds/set       {"name","value"}: a setting of one of the services
//	GET    /_clouds/state     what is stored, by service
//	GET    /_clouds/requests  what was asked so far; DELETE forgets it
//	DELETE /_clouds/all       back to the start, but for what is stored
type control struct {
	sync.Mutex
	faults   []*fault
	denied   map[[2]string]bool
	offset   time.Duration
	settings map[string]string
	requests []request
	state    map[string]func() any
}

type fault struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Times   int               `json:"times"`
	Delay   int               `json:"delay_ms"`
	Drop    bool              `json:"drop"`
	After   bool              `json:"after"`
}

type request struct {
	Proto  string `json:"proto"`
	Method string `json:"method"`
	Host   string `json:"host"`
	URI    string `json:"uri"`
	Auth   string `json:"auth,omitempty"`
	Body   string `json:"body,omitempty"`
	Status int    `json:"status"`
}

// shown tells what somebody identified himself with, without the secret: the kind of a token, or the claims of a JWT.
func shown(r *http.Request) string {
	token := bearer(r)
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if claims, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			return "jwt " + string(claims)
		}
	}
	if kind := strings.IndexAny(token, "-.0123456789"); kind >= 0 {
		token = token[:kind]
	}
	return token
}

func newControl() *control {
	return &control{denied: map[[2]string]bool{}, settings: map[string]string{}, state: map[string]func() any{}}
}

func (c *control) now() time.Time {
	c.Lock()
	defer c.Unlock()
	return time.Now().Add(c.offset)
}

func (c *control) setting(name string) string {
	c.Lock()
	defer c.Unlock()
	return c.settings[name]
}

// may tells whether somebody has a right.
func (c *control) may(who, what string) bool {
	c.Lock()
	defer c.Unlock()
	return !c.denied[[2]string{who, what}] && !c.denied[[2]string{"*", what}]
}

func (c *control) fault(r *http.Request) *fault {
	c.Lock()
	defer c.Unlock()
	for i, f := range c.faults {
		part, last := strings.CutSuffix(f.Path, "$")
		matches := strings.Contains(r.URL.RequestURI(), part) && (!last || strings.HasSuffix(r.URL.RequestURI(), part))
		if (f.Method == "" || f.Method == r.Method) && matches {
			if f.Times--; f.Times <= 0 {
				c.faults = append(c.faults[:i:i], c.faults[i+1:]...)
			}
			return f
		}
	}
	return nil
}

func (c *control) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_clouds/") {
			c.serve(w, r)
			return
		}
		seen := &watched{ResponseWriter: w, status: http.StatusOK}
		var body bytes.Buffer
		if r.Header.Get("Content-Type") != "application/grpc" {
			_, _ = io.Copy(&body, io.LimitReader(r.Body, 1<<20))
			r.Body = io.NopCloser(bytes.NewReader(body.Bytes()))
		}
		defer func() {
			c.Lock()
			c.requests = append(c.requests, request{r.Proto, r.Method, r.Host, r.URL.RequestURI(), shown(r), body.String(), seen.status})
			c.Unlock()
		}()
		f := c.fault(r)
		if f == nil {
			next.ServeHTTP(seen, r)
			return
		}
		if f.After {
			next.ServeHTTP(&discard{header: http.Header{}}, r)
		}
		time.Sleep(time.Duration(f.Delay) * time.Millisecond)
		switch {
		case f.Drop:
			seen.status = 0
			panic(http.ErrAbortHandler)
		case f.Status == 0: // only slow
			next.ServeHTTP(seen, r)
		default:
			for name, value := range f.Headers {
				w.Header().Set(name, value)
			}
			seen.WriteHeader(f.Status)
			_, _ = io.WriteString(w, f.Body)
		}
	})
}

func (c *control) serve(w http.ResponseWriter, r *http.Request) {
	var in struct {
		fault
		What, Who, Name, Value string
		Offset                 int
	}
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	if r.Method+" "+r.URL.Path == "GET /_clouds/state" {
		all := object{}
		for service, state := range c.state {
			all[service] = state()
		}
		reply(w, http.StatusOK, all)
		return
	}
	c.Lock()
	defer c.Unlock()
	switch r.Method + " " + r.URL.Path {
	case "POST /_clouds/fault":
		f := in.fault
		c.faults = append(c.faults, &f)
	case "POST /_clouds/deny":
		c.denied[[2]string{in.Who, in.What}] = true
	case "POST /_clouds/clock":
		c.offset = time.Duration(in.Offset) * time.Second
	case "POST /_clouds/set":
		c.settings[in.Name] = in.Value
	case "GET /_clouds/requests":
		reply(w, http.StatusOK, c.requests)
	case "DELETE /_clouds/requests":
		c.requests = nil
	case "DELETE /_clouds/all":
		c.faults, c.denied, c.offset, c.settings, c.requests = nil, map[[2]string]bool{}, 0, map[string]string{}, nil
	default:
		http.NotFound(w, r)
	}
}

// watched remembers the status, and lets gRPC flush.
type watched struct {
	http.ResponseWriter
	status int
}

func (w *watched) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Flush() {
	if flusher, ok := w.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
}

func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// discard is where an answer goes that nobody gets.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) Flush()                      {}
