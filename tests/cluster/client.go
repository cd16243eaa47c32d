package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/minio/kms-go/kms"
	"github.com/minio/kms-go/kms/cmds"
)

// How long a client waits for an answer. After that the outcome is unknown.
const answerWithin = 10 * time.Second

// What clients have been told.
type recorder struct {
	mu    sync.Mutex
	began time.Time
	ops   []*Op
	// The ciphertexts by the operation that made them.
	sealed map[int]sealed
	// By name, those that may still decrypt.
	fresh map[string][]int
}

type sealed struct {
	version    int
	ciphertext []byte
}

func newRecorder() *recorder {
	return &recorder{began: time.Now(), sealed: map[int]sealed{}, fresh: map[string][]int{}}
}

func (r *recorder) now() int64 { return int64(time.Since(r.began)) }

func (r *recorder) begin(node int, kind Kind, name string) *Op {
	return &Op{Node: node, Kind: kind, Name: name, Invoke: r.now()}
}

func (r *recorder) end(op *Op) *Op {
	op.Return = r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	op.ID = len(r.ops) + 1
	r.ops = append(r.ops, op)
	return op
}

// What an error says about the outcome.
func outcome(err error, changes bool) (Outcome, string) {
	if err == nil {
		return OK, ""
	}
	var refused kms.Error
	if !errors.As(err, &refused) {
		// Nobody was there to do anything.
		if errors.Is(err, syscall.ECONNREFUSED) || !changes {
			return Nothing, err.Error()
		}
		return Unknown, err.Error()
	}
	said := fmt.Sprintf("%d %s", refused.Code, refused.Err)
	switch {
	case refused.Code == 404 && refused.Err == "key does not exist":
		return Absent, ""
	case refused.Code == 409 && refused.Err == "key already exists":
		return Exists, ""
	case refused.Code == 409 && refused.Err == "key is being deleted":
		return Retired, ""
	case refused.Code == 400 && refused.Err == "invalid ciphertext":
		return Invalid, ""
	case refused.Code == 503 && strings.Contains(refused.Err, "is retired, not deleted"):
		return NotRemoved, said
	case refused.Code == 503 && strings.Contains(refused.Err, "nothing can be changed now"):
		return Nothing, said
	case refused.Code == 503 && !changes:
		return Nothing, said
	default:
		return Unknown, said
	}
}

func (r *recorder) create(n *node, name string, rotates bool) *Op {
	kind := Create
	if rotates {
		kind = Rotate
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	op := r.begin(n.number, kind, name)
	op.Outcome, op.Said = outcome(n.client.CreateKey(ctx, enclave, &kms.CreateKeyRequest{Name: name, AddVersion: rotates}), true)
	return r.end(op)
}

func (r *recorder) delete(n *node, name string) *Op {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	op := r.begin(n.number, Delete, name)
	op.Outcome, op.Said = outcome(n.client.DeleteKey(ctx, enclave, &kms.DeleteKeyRequest{Name: name, AllVersions: true}), true)
	return r.end(op)
}

func (r *recorder) status(n *node, name string) *Op {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	op := r.begin(n.number, Status, name)
	answers, err := n.client.KeyStatus(ctx, enclave, &kms.KeyStatusRequest{Name: name})
	op.Outcome, op.Said = outcome(err, false)
	if err == nil {
		op.Version = answers[0].Version
	}
	return r.end(op)
}

// Asks for all keys with a prefix: a status of each of these names.
func (r *recorder) list(n *node, prefix string, names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	began := r.now()
	page, err := n.client.ListKeys(ctx, &kms.ListRequest{Enclave: enclave, Prefix: prefix, Limit: 250})
	came, said := outcome(err, false)
	versions := map[string]int{}
	if err == nil {
		for _, item := range page.Items {
			versions[item.Name] = item.Version
		}
	}
	for _, name := range names {
		op := &Op{Node: n.number, Kind: Status, Name: name, Invoke: began, Outcome: came, Said: said, Version: versions[name]}
		if came == OK && op.Version == 0 {
			op.Outcome = Absent
		}
		r.end(op)
	}
}

func plaintext(name string) string { return "message of " + name }

// Encrypt of the SDK is broken: it gives an answer of its own making. tests/interop notices when it is mended.
func (n *node) encrypt(ctx context.Context, name string) (answer kms.EncryptResponse, err error) {
	body, err := cmds.Encode(nil, cmds.KeyEncrypt, &kms.EncryptRequest{Name: name, Plaintext: []byte(plaintext(name))})
	if err != nil {
		return answer, err
	}
	reply, err := n.client.Send(ctx, &kms.Request{Enclave: enclave, Body: body})
	if err != nil {
		return answer, err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err == nil {
		_, err = cmds.Decode(text, cmds.KeyEncrypt, &answer)
	}
	return answer, err
}

func (r *recorder) encrypt(n *node, name string) *Op {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	op := r.begin(n.number, Encrypt, name)
	answer, err := n.encrypt(ctx, name)
	op.Outcome, op.Said = outcome(err, false)
	op.Version = answer.Version
	r.end(op)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sealed[op.ID] = sealed{op.Version, answer.Ciphertext}
		r.fresh[name] = append(r.fresh[name], op.ID)
	}
	return op
}

// Decrypts a ciphertext of this name, if there is one.
func (r *recorder) decryptAny(n *node, name string) {
	r.mu.Lock()
	all := r.fresh[name]
	if len(all) == 0 {
		r.mu.Unlock()
		return
	}
	of := all[rand.IntN(len(all))]
	r.mu.Unlock()
	r.decrypt(n, name, of)
}

func (r *recorder) decrypt(n *node, name string, of int) *Op {
	r.mu.Lock()
	sealed := r.sealed[of]
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	op := r.begin(n.number, Decrypt, name)
	op.Of, op.Version = of, sealed.version
	answers, err := n.client.Decrypt(ctx, enclave, &kms.DecryptRequest{Name: name, Version: sealed.version, Ciphertext: sealed.ciphertext})
	op.Outcome, op.Said = outcome(err, false)
	if err == nil && string(answers[0].Plaintext) != plaintext(name) {
		op.Said = string(answers[0].Plaintext)
	}
	r.end(op)
	if op.Outcome == Absent || op.Outcome == Invalid {
		r.mu.Lock()
		defer r.mu.Unlock()
		for n, id := range r.fresh[name] {
			if id == of {
				r.fresh[name] = append(r.fresh[name][:n:n], r.fresh[name][n+1:]...)
				break
			}
		}
	}
	return op
}

// Writes all operations, one a line.
func (r *recorder) save(file string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	lines := json.NewEncoder(out)
	for _, op := range r.ops {
		if err := lines.Encode(op); err != nil {
			return err
		}
	}
	return nil
}

// Clients that ask at a fixed rate, whatever the answers.
type load struct {
	*recorder
	cluster *cluster
	rate    int
	// How many names are in use at a time, and for how long.
	names int
	life  time.Duration
	all   []string
	work  sync.WaitGroup
	over  chan struct{}
}

func (l *load) start() {
	l.over = make(chan struct{})
	go func() {
		tick := time.NewTicker(time.Second / time.Duration(l.rate))
		defer tick.Stop()
		generation, names := -1, []string(nil)
		for {
			select {
			case <-l.over:
				return
			case <-tick.C:
			}
			if now := int(time.Since(l.began) / l.life); now != generation {
				generation = now
				names = nil
				for n := range l.names {
					names = append(names, fmt.Sprintf("g%d-%d", generation, n))
				}
				l.all = append(l.all, names...)
			}
			prefix, name := fmt.Sprintf("g%d-", generation), names[rand.IntN(len(names))]
			at, names := l.cluster.nodes[rand.IntN(len(l.cluster.nodes))], names
			l.work.Add(1)
			go func() {
				defer l.work.Done()
				l.one(at, prefix, name, names)
			}()
		}
	}()
}

func (l *load) one(at *node, prefix, name string, names []string) {
	switch dice := rand.IntN(100); {
	case dice < 13:
		l.create(at, name, false)
	case dice < 26:
		l.create(at, name, true)
	case dice < 32:
		l.recorder.delete(at, name)
	case dice < 46:
		l.status(at, name)
	case dice < 49:
		l.list(at, prefix, names)
	case dice < 80:
		l.encrypt(at, name)
	default:
		l.decryptAny(at, name)
	}
}

// Stops asking, waits for the answers, and asks every node once more about everything.
func (l *load) finish() {
	close(l.over)
	l.work.Wait()
	slots := make(chan struct{}, 16)
	for _, name := range l.all {
		for _, n := range l.cluster.nodes {
			slots <- struct{}{}
			l.work.Add(1)
			go func() {
				defer l.work.Done()
				defer func() { <-slots }()
				l.status(n, name)
				l.encrypt(n, name)
				l.decryptAny(n, name)
			}()
		}
	}
	l.work.Wait()
}
