// SPDX-License-Identifier: Apache-2.0

// Command katie drives github.com/Bren2010/katie for the tests and benches of this folder; see
// README.md. Built as a test binary it serves them under simulated time (serve_test.go).
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 || os.Args[1] != "bench" {
		fmt.Fprintln(os.Stderr, "usage: katie bench <requests >results")
		os.Exit(2)
	}
	if err := bench(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
