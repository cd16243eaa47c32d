// A key manager on three machines over three etcd, in trouble: what clients are told is judged.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

var (
	length   = flag.Duration("length", time.Minute, "how long a history is, or an outage")
	rate     = flag.Int("rate", 60, "operations a second")
	deletes  = flag.Int("deletes", 2_000, "how many deletes")
	keys     = flag.Int("keys", 100_000, "how many keys are loaded")
	allKinds = flag.Bool("all", false, "all kinds of faults")
)

const usage = `usage: cluster [OPTIONS] history | deletes | outage | setback | measure
CLAVIGER names the built program; etcd and etcdctl are in the PATH.
`

func main() {
	flag.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	runs := map[string]func(string) error{
		"history": runHistory,
		"deletes": runDeletes,
		"outage":  runOutage,
		"setback": runSetBack,
		"measure": runMeasure,
	}
	run := runs[flag.Arg(0)]
	if run == nil {
		flag.Usage()
		os.Exit(2)
	}
	began, dir := time.Now(), scratch()
	err := run(dir)
	fmt.Printf("%s took %s on %d processors\n", flag.Arg(0), time.Since(began).Round(time.Second), runtime.NumCPU())
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\nwhat it left: %s\n", flag.Arg(0), err, dir)
		os.Exit(1)
	}
	os.RemoveAll(dir)
}

func runHistory(dir string) error {
	c, err := startCluster(dir, 3, "24h")
	if err != nil {
		return err
	}
	defer c.stop()
	faults := short
	if *allKinds {
		faults = append(slices.Clone(short), more...)
	}
	l := &load{recorder: newRecorder(), cluster: c, rate: *rate, names: 12, life: 15 * time.Second}
	l.start()
	counts, injected := inject(c, faults, *length)
	if injected == nil {
		injected = c.healed()
	}
	l.finish()
	if err := conclude(dir, l.recorder, counts); err != nil {
		return err
	}
	return injected
}

// Waits until every node makes changes again.
func (c *cluster) healed() error {
	probe := newRecorder()
	for _, n := range c.nodes {
		if err := eventually(fmt.Sprintf("node %d works again, see %s", n.number, n.log), 2*time.Minute, func() bool {
			return probe.create(n, fmt.Sprintf("healed-%d-%d", n.number, time.Now().UnixNano()), false).Outcome == OK
		}); err != nil {
			return err
		}
	}
	return nil
}

// Judges a history, and prints what came out.
func conclude(dir string, r *recorder, counts map[string]int) error {
	result := r.judge(dir)
	fmt.Printf("length: %s\n", time.Duration(r.now()).Round(time.Second))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Printf("  %3d times %s\n", counts[name], name)
	}
	result.print()
	if len(result.violations) == 0 {
		return nil
	}
	file := filepath.Join(dir, "history.jsonl")
	if err := r.save(file); err != nil {
		return err
	}
	return fmt.Errorf("%d violations: the history is %s", len(result.violations), file)
}
