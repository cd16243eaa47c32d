package main

import "fmt"

// Violations of the rules for answers that may be old, in the operations with one name:
// what was encrypted decrypts unless a delete was asked for; nothing is encrypted once the key was gone; on one node
// versions never go back; no version comes from nowhere.
func violations(ops []*Op) []string {
	var found []string
	byID := map[int]*Op{}
	for _, op := range ops {
		byID[op.ID] = op
	}
	for _, op := range ops {
		var what string
		switch {
		case op.Kind == Decrypt && (op.Outcome == Absent || op.Outcome == Invalid):
			if !anyDelete(ops, byID[op.Of].Invoke, op.Return) {
				what = "it does not decrypt, and nobody asked for a delete"
			}
		case op.Kind == Decrypt && op.Outcome == OK && op.Said != "":
			what = "another plaintext: " + op.Said
		case op.Kind == Encrypt && op.Outcome == OK:
			what = wrongEncrypt(ops, op)
		}
		if what != "" {
			found = append(found, fmt.Sprintf("%s: operation %d, %s at node %d: %s", op.Name, op.ID, op.Kind, op.Node, what))
		}
	}
	return found
}

// When an operation ends, if it has an effect.
func (op *Op) end() int64 {
	if op.Outcome == Unknown {
		return Never
	}
	return op.Return
}

// Whether it may have made a change.
func (op *Op) mayChange() bool {
	return op.Outcome == OK || op.Outcome == Unknown
}

// Whether a delete may have taken effect between these moments.
func anyDelete(ops []*Op, from, to int64) bool {
	for _, op := range ops {
		// One that is told that the key is gone may have made the first step.
		may := op.mayChange() || op.Outcome == NotRemoved || op.Outcome == Absent
		if op.Kind == Delete && may && op.Invoke < to && op.end() > from {
			return true
		}
	}
	return false
}

// What is wrong with the answer to an encryption.
func wrongEncrypt(ops []*Op, encrypt *Op) string {
	most := 0
	for _, op := range ops {
		if op.Invoke < encrypt.Return && op.mayChange() && (op.Kind == Create || op.Kind == Rotate) {
			most++
		}
	}
	if encrypt.Version > most {
		return fmt.Sprintf("version %d, and at most %d were made", encrypt.Version, most)
	}
	for _, op := range ops {
		if op.Return >= encrypt.Invoke {
			continue
		}
		isGone := op.Kind == Delete && op.Outcome == OK || op.Outcome == Absent && op.Kind != Decrypt
		if isGone && !anyCreate(ops, op.Invoke, encrypt.Return) {
			return fmt.Sprintf("the key was gone by operation %d, and nobody made it again", op.ID)
		}
		told := op.Outcome == OK && (op.Kind == Encrypt || op.Kind == Status)
		if told && op.Node == encrypt.Node && op.Version > encrypt.Version && !anyDelete(ops, op.Invoke, encrypt.Return) {
			return fmt.Sprintf("version %d after %d of operation %d", encrypt.Version, op.Version, op.ID)
		}
	}
	return ""
}

// Whether a create may have taken effect between these moments.
func anyCreate(ops []*Op, from, to int64) bool {
	for _, op := range ops {
		if op.Kind == Create && op.mayChange() && op.Invoke < to && op.end() > from {
			return true
		}
	}
	return false
}
