package main

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// A history in which operation n is asked at 10 n and answered 5 later, unless it says otherwise.
func history(ops ...*Op) []*Op {
	for n, op := range ops {
		op.ID, op.Name = n+1, "k"
		if op.Return == 0 {
			op.Invoke, op.Return = int64(n+1)*10, int64(n+1)*10+5
		}
	}
	return ops
}

func isPossible(ops []*Op) bool {
	return porcupine.CheckOperations(model, steps(ops))
}

func TestHistoriesThatMayBe(t *testing.T) {
	for name, ops := range map[string][]*Op{
		"a life": history(
			&Op{Kind: Status, Outcome: Absent},
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Create, Outcome: Exists},
			&Op{Kind: Rotate, Outcome: OK},
			&Op{Kind: Status, Outcome: OK, Version: 2},
			&Op{Kind: Delete, Outcome: OK},
			&Op{Kind: Status, Outcome: Absent},
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Status, Outcome: OK, Version: 1}),
		"an unknown outcome that was one": history(
			&Op{Kind: Create, Outcome: Unknown},
			&Op{Kind: Status, Outcome: Absent},
			&Op{Kind: Status, Outcome: OK, Version: 1}),
		"an unknown outcome that was none": history(
			&Op{Kind: Create, Outcome: Unknown},
			&Op{Kind: Create, Outcome: OK}),
		"a key that is retired": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Delete, Outcome: NotRemoved},
			&Op{Kind: Encrypt, Outcome: Retired},
			&Op{Kind: Status, Outcome: OK, Version: 1},
			&Op{Kind: Delete, Outcome: OK},
			&Op{Kind: Encrypt, Outcome: Absent}),
		"two deletes at once": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Delete, Outcome: OK, Invoke: 20, Return: 60},
			&Op{Kind: Delete, Outcome: Absent, Invoke: 30, Return: 70},
			&Op{Kind: Create, Outcome: OK, Invoke: 80, Return: 90}),
	} {
		if !isPossible(ops) {
			t.Errorf("%s is said to be impossible", name)
		}
		if found := violations(ops); len(found) != 0 {
			t.Errorf("%s: %q", name, found)
		}
	}
}

func TestHistoriesThatMayNotBe(t *testing.T) {
	for name, ops := range map[string][]*Op{
		"a lost write": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Status, Outcome: Absent}),
		"a lost version": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Rotate, Outcome: OK},
			&Op{Kind: Status, Outcome: OK, Version: 1}),
		"a version that was made twice": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Rotate, Outcome: OK, Invoke: 20, Return: 40},
			&Op{Kind: Rotate, Outcome: OK, Invoke: 21, Return: 41},
			&Op{Kind: Status, Outcome: OK, Version: 2, Invoke: 50, Return: 60}),
		"a key that was made twice": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Create, Outcome: OK}),
		"a false absence": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Encrypt, Outcome: Absent}),
		"a false presence": history(
			&Op{Kind: Create, Outcome: Exists}),
		"a refusal that took effect": history(
			&Op{Kind: Create, Outcome: Nothing},
			&Op{Kind: Status, Outcome: OK, Version: 1}),
		"an effect that goes away again": history(
			&Op{Kind: Create, Outcome: Unknown},
			&Op{Kind: Status, Outcome: OK, Version: 1},
			&Op{Kind: Status, Outcome: Absent}),
		"a delete that did nothing": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Delete, Outcome: OK},
			&Op{Kind: Status, Outcome: OK, Version: 1}),
		"a way back": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Delete, Outcome: NotRemoved},
			&Op{Kind: Rotate, Outcome: OK}),
	} {
		if isPossible(ops) {
			t.Errorf("%s is said to be possible", name)
		}
	}
}

func TestRulesForAnswersThatMayBeOld(t *testing.T) {
	for name, ops := range map[string][]*Op{
		"encrypted after a delete": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Delete, Outcome: OK},
			&Op{Kind: Encrypt, Outcome: OK, Version: 1}),
		"encrypted after an absence": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Delete, Outcome: Unknown},
			&Op{Kind: Status, Outcome: Absent},
			&Op{Kind: Encrypt, Outcome: OK, Version: 1}),
		"lost": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Encrypt, Outcome: OK, Version: 1},
			&Op{Kind: Decrypt, Outcome: Invalid, Version: 1, Of: 2}),
		"an older version at the same node": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Rotate, Outcome: OK},
			&Op{Kind: Encrypt, Outcome: OK, Version: 2},
			&Op{Kind: Encrypt, Outcome: OK, Version: 1}),
		"a version that nobody made": history(
			&Op{Kind: Create, Outcome: OK},
			&Op{Kind: Encrypt, Outcome: OK, Version: 2}),
	} {
		if len(violations(ops)) == 0 {
			t.Errorf("%s is not noticed", name)
		}
	}
	if found := violations(history(
		&Op{Kind: Create, Outcome: OK},
		&Op{Kind: Rotate, Outcome: OK},
		&Op{Kind: Encrypt, Outcome: OK, Version: 2},
		&Op{Kind: Encrypt, Outcome: OK, Version: 1, Node: 1},
		&Op{Kind: Decrypt, Outcome: OK, Version: 1, Of: 4},
	)); len(found) != 0 {
		t.Errorf("another node may be behind: %q", found)
	}
}
