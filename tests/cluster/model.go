package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// What is asked of a node.
type Kind string

const (
	Create  Kind = "create"
	Rotate  Kind = "rotate"
	Delete  Kind = "delete"
	Status  Kind = "status"
	Encrypt Kind = "encrypt"
	Decrypt Kind = "decrypt"
)

// What came of it.
type Outcome string

const (
	OK Outcome = "ok"
	// There is no such key.
	Absent Outcome = "absent"
	// There is one already.
	Exists Outcome = "exists"
	// It is being deleted.
	Retired Outcome = "retired"
	// A delete whose second step was not made.
	NotRemoved Outcome = "not removed"
	// The ciphertext is not of this key.
	Invalid Outcome = "invalid"
	// Nothing was changed, and nothing was learnt.
	Nothing Outcome = "nothing"
	// Nobody knows.
	Unknown Outcome = "unknown"
)

// Never is when an operation returns whose outcome is unknown.
const Never = int64(1) << 60

// Op is one operation of a client. Times are nanoseconds since the start.
type Op struct {
	ID      int     `json:"id"`
	Node    int     `json:"node"`
	Kind    Kind    `json:"kind"`
	Name    string  `json:"name"`
	Invoke  int64   `json:"invoke"`
	Return  int64   `json:"return"`
	Outcome Outcome `json:"outcome"`
	// The version that was told; of a decryption, the one that was asked for.
	Version int `json:"version,omitempty"`
	// Of a decryption: the encryption that made the ciphertext.
	Of int `json:"of,omitempty"`
	// What an error said.
	Said string `json:"said,omitempty"`
}

// A key: which of its lives this is, the newest version (0: there is no key), whether it is about to be deleted, and the
// deletes that have made their first step and not their second.
type key struct {
	life    int
	newest  int
	retired bool
	marks   string
}

func (k key) exists() bool { return k.newest > 0 }

// A delete has two steps. Each takes effect at a moment of its own.
type part int

const (
	whole part = iota
	retire
	remove
)

type step struct {
	op   *Op
	part part
}

func (k key) mark(id int) key {
	marks := strings.Fields(k.marks)
	marks = append(marks, fmt.Sprintf("%d=%d", id, k.life))
	slices.Sort(marks)
	k.marks = strings.Join(marks, " ")
	return k
}

// The same without the mark of a delete, and the life that it was about; 0: it has none.
func (k key) unmark(id int) (key, int) {
	var left []string
	life := 0
	for _, mark := range strings.Fields(k.marks) {
		var of, about int
		fmt.Sscanf(mark, "%d=%d", &of, &about)
		if of == id {
			life = about
		} else {
			left = append(left, mark)
		}
	}
	k.marks = strings.Join(left, " ")
	return k, life
}

func (k key) created() key {
	return key{life: k.life + 1, newest: 1, marks: k.marks}
}

func (k key) gone() key {
	return key{life: k.life, marks: k.marks}
}

// What a key may be after a step that told this; nothing: it cannot have been told.
func (k key) after(s step) []key {
	only := func(allowed bool) []key {
		if allowed {
			return []key{k}
		}
		return nil
	}
	change := func(allowed bool, changed key) []key {
		switch {
		case s.op.Outcome == Unknown && allowed:
			return []key{k, changed}
		case s.op.Outcome == Unknown:
			return []key{k}
		case allowed:
			return []key{changed}
		default:
			return nil
		}
	}
	switch s.part {
	case retire:
		return k.afterRetire(s.op)
	case remove:
		return k.afterRemove(s.op)
	}
	switch s.op.Outcome {
	case Absent:
		missing := s.op.Kind == Decrypt && k.newest < s.op.Version
		return only(!k.exists() || missing)
	case Exists, Invalid:
		return only(k.exists())
	case Retired:
		return only(k.exists() && k.retired)
	}
	switch s.op.Kind {
	case Create:
		return change(!k.exists(), k.created())
	case Rotate:
		rotated := k
		rotated.newest++
		return change(k.exists() && !k.retired, rotated)
	case Status:
		return only(k.exists() && k.newest == s.op.Version)
	}
	return nil
}

func (k key) afterRetire(op *Op) []key {
	retired := k
	retired.retired = true
	switch {
	case op.Outcome == OK && k.exists():
		return []key{retired.mark(op.ID)}
	case op.Outcome == NotRemoved && k.exists():
		return []key{retired}
	case op.Outcome == Unknown && k.exists():
		return []key{k, retired.mark(op.ID)}
	// Another delete may have been faster with the second step.
	case op.Outcome == Absent && k.exists():
		return []key{k, retired}
	case op.Outcome == Unknown || op.Outcome == Absent:
		return []key{k}
	default:
		return nil
	}
}

func (k key) afterRemove(op *Op) []key {
	left, life := k.unmark(op.ID)
	isThere := life == k.life && k.exists()
	switch {
	case life == 0 && op.Outcome == Unknown:
		return []key{k}
	case life == 0:
		return nil
	// Another delete has removed it.
	case !isThere:
		return []key{left}
	case op.Outcome == Unknown:
		return []key{left, left.gone()}
	default:
		return []key{left.gone()}
	}
}

// The steps of the operations with one name that a model of a key can judge. Answers that may be old are not among them:
// see rules.go.
func steps(ops []*Op) []porcupine.Operation {
	var all []porcupine.Operation
	add := func(op *Op, part part, end int64) {
		all = append(all, porcupine.Operation{ClientId: op.ID, Input: step{op, part}, Call: op.Invoke, Return: end})
	}
	for _, op := range ops {
		end := op.Return
		if op.Outcome == Unknown {
			end = Never
		}
		switch {
		case op.Outcome == Nothing:
		case op.Kind == Delete && op.Outcome == Absent:
			add(op, retire, end)
			add(op, whole, end)
		case op.Kind == Delete && op.Outcome == NotRemoved:
			add(op, retire, end)
		case op.Kind == Delete:
			add(op, retire, end)
			add(op, remove, end)
		case op.Outcome == Unknown && op.Kind != Create && op.Kind != Rotate:
		case op.Outcome == OK && (op.Kind == Encrypt || op.Kind == Decrypt):
		default:
			add(op, whole, end)
		}
	}
	return all
}

var model = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{key{}} },
	Step: func(state, input, _ any) []any {
		var states []any
		for _, next := range state.(key).after(input.(step)) {
			states = append(states, next)
		}
		return states
	},
	DescribeOperation: func(input, _ any) string {
		s := input.(step)
		return fmt.Sprintf("%s %s at %d: %s %d", []string{"", "retire", "remove"}[s.part], s.op.Kind, s.op.Node, s.op.Outcome, s.op.Version)
	},
	DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
}).ToModel()
