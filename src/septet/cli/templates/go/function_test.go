// Run with: go test
package function

import "testing"

func TestNamesWhomItGreets(t *testing.T) {
	if got := greeting("Ada"); got != "Hello, Ada!" {
		t.Error(got)
	}
}

func TestGreetsTheWorldByDefault(t *testing.T) {
	if got := greeting(""); got != "Hello, world!" {
		t.Error(got)
	}
}
