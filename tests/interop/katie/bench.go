// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/Bren2010/katie/db"
	"github.com/Bren2010/katie/db/memory"
	"github.com/Bren2010/katie/tree/transparency"
	"github.com/Bren2010/katie/tree/transparency/structs"
)

// benchMessage is one step of tests/bench/katie.ts.
type benchMessage struct {
	Op     string         `json:"op"`
	Store  string         `json:"store"`  // open: memory, leveldb or synced
	Folder string         `json:"folder"` // open: of the LevelDB database
	Config *configMessage `json:"config"`
	// Labels are named user-0, user-1 and so on.
	Labels []uint32 `json:"labels"`
	Batch  int      `json:"batch"` // update: labels of one entry
	Bytes  int      `json:"bytes"` // update: size of a value
}

// benchReply says what a step cost: processor time of the whole process, and bytes of the answers.
type benchReply struct {
	CPUUs int64 `json:"cpuUs"`
	Bytes int   `json:"bytes"`
}

// bench runs katie's Tree over one of its stores under the time of the machine.
func bench(in io.Reader, out io.Writer) error {
	var (
		tree   *transparency.Tree
		store  db.TransparencyStore
		lines  = bufio.NewReaderSize(in, 1<<20)
		result = json.NewEncoder(out)
	)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var m benchMessage
		if err := json.Unmarshal(line, &m); err != nil {
			return err
		}
		before, bytes := cpuUs(), 0
		switch m.Op {
		case "open":
			config, _, err := m.Config.private()
			if err != nil {
				return err
			}
			if store, err = benchStore(m.Store, m.Folder); err != nil {
				return err
			}
			if tree, err = transparency.NewTree(*config, store, nil); err != nil {
				return err
			}
		case "update":
			err = benchUpdate(tree, &m)
		case "search":
			bytes, err = benchSearch(tree, m.Labels)
		default:
			err = fmt.Errorf("unknown op %q", m.Op)
		}
		if err != nil {
			return err
		}
		if err := result.Encode(benchReply{cpuUs() - before, bytes}); err != nil {
			return err
		}
	}
}

// benchStore opens one of katie's own stores, or LevelDB with a sync for each commit.
func benchStore(kind, folder string) (db.TransparencyStore, error) {
	switch kind {
	case "memory":
		return memory.NewTransparencyStore(), nil
	case "leveldb":
		return db.NewLDBTransparencyStore(folder)
	case "synced":
		return newSyncedStore(folder)
	}
	return nil, fmt.Errorf("unknown store %q", kind)
}

func benchLabel(label uint32) []byte { return []byte(fmt.Sprintf("user-%d", label)) }

// benchUpdate makes one new version of each label, `Batch` of them in one entry.
func benchUpdate(tree *transparency.Tree, m *benchMessage) error {
	for len(m.Labels) > 0 {
		now := min(m.Batch, len(m.Labels))
		pairs := make([]transparency.LabelValue, now)
		for i, label := range m.Labels[:now] {
			pairs[i].Label = benchLabel(label)
			pairs[i].Value.Value = make([]byte, m.Bytes)
		}
		if _, err := tree.Mutate(pairs, nil); err != nil {
			return err
		}
		m.Labels = m.Labels[now:]
	}
	return nil
}

// benchSearch looks up the greatest version of each label for somebody new.
func benchSearch(tree *transparency.Tree, labels []uint32) (int, error) {
	bytes := 0
	for _, label := range labels {
		found, err := tree.Search(context.Background(), &structs.SearchRequest{Label: benchLabel(label)})
		if err != nil {
			return 0, err
		}
		encoded, err := structs.Marshal(found)
		if err != nil {
			return 0, err
		}
		bytes += len(encoded)
	}
	return bytes, nil
}

// cpuUs is what this process has used so far, in user and system mode.
func cpuUs() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return (usage.Utime.Nano() + usage.Stime.Nano()) / 1000
}
