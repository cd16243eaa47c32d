package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// How long one name may be looked at.
const judging = time.Minute

// What came out of a history.
type verdict struct {
	operations, unknown, nothing int
	names, undecided             int
	violations                   []string
	outcomes                     map[string]int
	writes, reads                []time.Duration
}

// Judges everything that clients were told.
func (r *recorder) judge(dir string) verdict {
	r.mu.Lock()
	byName := map[string][]*Op{}
	result := verdict{outcomes: map[string]int{}, operations: len(r.ops)}
	for _, op := range r.ops {
		byName[op.Name] = append(byName[op.Name], op)
		result.count(op)
	}
	r.mu.Unlock()
	result.names = len(byName)
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		ops := byName[name]
		slices.SortFunc(ops, func(a, b *Op) int { return int(a.Invoke - b.Invoke) })
		result.violations = append(result.violations, violations(ops)...)
		done, info := porcupine.CheckOperationsVerbose(model, steps(ops), judging)
		switch done {
		case porcupine.Illegal:
			picture := filepath.Join(dir, name+".html")
			porcupine.VisualizePath(model, info, picture)
			result.violations = append(result.violations, fmt.Sprintf("%s: no order of its operations explains the answers: %s", name, picture))
		case porcupine.Unknown:
			result.undecided++
		}
	}
	return result
}

func (v *verdict) count(op *Op) {
	v.outcomes[fmt.Sprintf("%s: %s", op.Kind, op.Outcome)]++
	took := time.Duration(op.Return - op.Invoke)
	switch op.Outcome {
	case Unknown:
		v.unknown++
	case Nothing:
		v.nothing++
	case OK:
		switch op.Kind {
		case Create, Rotate:
			v.writes = append(v.writes, took)
		case Status:
			v.reads = append(v.reads, took)
		}
	}
}

func percentiles(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	slices.Sort(times)
	at := func(share float64) time.Duration {
		return times[int(share*float64(len(times)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %s, p99 %s, most %s of %d", at(0.5), at(0.99), at(1), len(times))
}

func (v verdict) print() {
	fmt.Printf("operations: %d on %d names, of which %d unknown, %d answered that nothing can be said or done\n", v.operations, v.names, v.unknown, v.nothing)
	for _, kind := range slices.Sorted(maps.Keys(v.outcomes)) {
		fmt.Printf("  %-22s %d\n", kind, v.outcomes[kind])
	}
	fmt.Printf("writes: %s\nconfirmed reads: %s\n", percentiles(v.writes), percentiles(v.reads))
	fmt.Printf("names that could not be judged in %s: %d\nviolations: %d\n", judging, v.undecided, len(v.violations))
	for _, violation := range v.violations {
		fmt.Println("  " + violation)
	}
}

// Where what a run leaves is kept.
func scratch() string {
	dir, err := os.MkdirTemp("", "claviger-cluster-")
	if err != nil {
		panic(err)
	}
	return dir
}
