// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
	"testing/synctest"
)

// TestServe is the server of the differential test. katie asks for the time itself, so it runs in a
// bubble whose time is simulated: histories of days take no time, and every run sees the same one.
func TestServe(t *testing.T) {
	if os.Getenv("KATIE_SERVE") == "" {
		t.Skip("serves katie.test.ts only")
	}
	synctest.Test(t, func(t *testing.T) {
		if err := serve(os.Stdin, os.Stdout); err != nil {
			t.Fatal(err)
		}
	})
}
