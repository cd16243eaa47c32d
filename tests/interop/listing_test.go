package interop

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/minio/kms-go/kes"
)

// More names than three pages of 1 MB have room for.
const many = 40_000

// Puts keys into the store of s, all like the one named: through the API it would take minutes.
func addKeys(t *testing.T, s *server, like string) []string {
	t.Helper()
	names := make([]string, many)
	for i := range names {
		name := fmt.Sprintf("page-%05d-", i)
		names[i] = name + strings.Repeat("x", 80-len(name))
	}
	s.fill(t, like, names)
	return names
}

func TestListingsHaveEveryNameOnce(t *testing.T) {
	s, ctx := startServer(t), testContext(t)
	admin := s.as(t, s.admin)
	ok(t, admin.CreateKey(ctx, "a-key"))
	ok(t, admin.CreateKey(ctx, "z-key"))
	paged := addKeys(t, s, "a-key")
	all := append(append([]string{"a-key"}, paged...), "z-key")

	for prefix, expected := range map[string][]string{"": all, "*": all, "page-": paged, "page-000*": paged[:100], "q": {}} {
		var names []string
		pages := 0
		for token := prefix; pages == 0 || token != ""; pages++ {
			page, next, err := admin.ListKeys(ctx, token, 0)
			ok(t, err)
			names, token = append(names, page...), next
		}
		if !slices.Equal(names, expected) {
			t.Errorf("%q: %d names, and not the %d there are", prefix, len(names), len(expected))
		}
		if len(expected) >= many && pages < 3 {
			t.Errorf("%q: %d pages: this tests no paging", prefix, pages)
		}
	}

	iterator := kes.ListIter[string]{NextFunc: admin.ListKeys}
	var names []string
	name, err := iterator.Next(ctx)
	for ; err == nil; name, err = iterator.Next(ctx) {
		names = append(names, name)
	}
	if !errors.Is(err, io.EOF) || !slices.Equal(names, all) {
		t.Errorf("the iterator: %d names, then: %v", len(names), err)
	}
	first, err := (&kes.ListIter[string]{NextFunc: admin.ListKeys}).SeekTo(ctx, "z")
	ok(t, err)
	if first != "z-key" {
		t.Errorf("the first from z: %s", first)
	}
}
