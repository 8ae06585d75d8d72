// Package function is the function __NAME__: it answers a greeting for the name in the request's body.
package function

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

func Handler(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body ended early", http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, greeting(strings.TrimSpace(string(body))))
}

func greeting(name string) string {
	if name == "" {
		name = "world"
	}
	return fmt.Sprintf("Hello, %s!", name)
}
