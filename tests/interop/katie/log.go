// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/Bren2010/katie/crypto/commitments"
	"github.com/Bren2010/katie/db"
	"github.com/Bren2010/katie/db/memory"
	"github.com/Bren2010/katie/tree/log"
	"github.com/Bren2010/katie/tree/transparency"
	"github.com/Bren2010/katie/tree/transparency/algorithms"
	"github.com/Bren2010/katie/tree/transparency/math"
	"github.com/Bren2010/katie/tree/transparency/structs"
)

// katieLog is katie's Tree over its memory store.
type katieLog struct {
	config *structs.PrivateConfig
	store  db.TransparencyStore
	tree   *transparency.Tree
	// index holds the entry of each version of a label.
	index map[string][]uint64
}

func newLog(c *configMessage) (*katieLog, error) {
	config, _, err := c.private()
	if err != nil {
		return nil, err
	}
	store := memory.NewTransparencyStore()
	tree, err := transparency.NewTree(*config, store, nil)
	if err != nil {
		return nil, err
	}
	return &katieLog{config, store, tree, make(map[string][]uint64)}, nil
}

func (l *katieLog) size() uint64 { return l.tree.TreeHead().TreeSize }

// mutate adds one log entry, and tells what an auditor gets of it and the root that was signed.
func (l *katieLog) mutate(add []labelValue) (*reply, error) {
	pairs := make([]transparency.LabelValue, len(add))
	for i, one := range add {
		pairs[i].Label = one.Label
		pairs[i].Value.Value = one.Value
	}
	update, err := l.tree.Mutate(pairs, nil)
	if err != nil {
		return nil, refused(err)
	}
	n := l.size()
	for _, one := range add {
		l.index[string(one.Label)] = append(l.index[string(one.Label)], n-1)
	}
	heads, err := log.NewTree(suite, l.store.LogStore()).GetBatch(nil, n, nil, nil)
	if err != nil {
		return nil, err
	}
	root, err := log.Root(suite, n, heads)
	if err != nil {
		return nil, err
	}
	entry, err := l.store.BatchGet([]uint64{n - 1})
	if err != nil {
		return nil, err
	}
	encoded, err := structs.Marshal(update)
	if err != nil {
		return nil, err
	}
	head, err := structs.Marshal(l.tree.TreeHead())
	return &reply{Root: root, Entry: entry[n-1], Update: encoded, Head: head}, err
}

// request decodes all of a request.
func request[T any](raw []byte, decode func(*bytes.Buffer) (*T, error)) (*T, error) {
	buf := bytes.NewBuffer(raw)
	decoded, err := decode(buf)
	if err != nil {
		return nil, refused(err)
	} else if buf.Len() != 0 {
		return nil, refused(errors.New("trailing bytes"))
	}
	return decoded, nil
}

// answered encodes an answer of katie's or passes its refusal on.
func answered(response structs.Marshaller, err error) (*reply, error) {
	if err != nil {
		return nil, refused(err)
	}
	encoded, err := structs.Marshal(response)
	if err != nil {
		return nil, refused(err)
	}
	return &reply{Response: encoded}, nil
}

func (l *katieLog) serve(kind string, raw []byte) (*reply, error) {
	ctx := context.Background()
	switch kind {
	case "search":
		req, err := request(raw, structs.NewSearchRequest)
		if err != nil {
			return nil, err
		}
		return answered(l.tree.Search(ctx, req))
	case "contactMonitor":
		req, err := request(raw, structs.NewContactMonitorRequest)
		if err != nil {
			return nil, err
		}
		return answered(l.tree.ContactMonitor(ctx, req))
	case "ownerInit":
		req, err := request(raw, structs.NewOwnerInitRequest)
		if err != nil {
			return nil, err
		}
		return answered(l.tree.OwnerInit(ctx, req))
	case "ownerMonitor":
		req, err := request(raw, structs.NewOwnerMonitorRequest)
		if err != nil {
			return nil, err
		}
		return answered(l.tree.OwnerMonitor(ctx, req))
	case "update":
		req, err := request(raw, structs.NewUpdateRequest)
		if err != nil {
			return nil, err
		}
		updates, err := l.tree.Update(ctx, req)
		if err != nil {
			return nil, refused(err)
		}
		first, ok := <-updates
		if !ok {
			return nil, refused(errors.New("no response"))
		}
		return answered(first.Out, first.Err)
	case "updateByParts":
		req, err := request(raw, structs.NewUpdateRequest)
		if err != nil {
			return nil, err
		}
		return answered(l.updateByParts(req))
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

// updateByParts is what Tree.Update cannot do: it gives katie's algorithm of section 9.1 the owner's
// state, tells it of the next older news, and wraps what it recorded.
func (l *katieLog) updateByParts(req *structs.UpdateRequest) (*structs.UpdateResponse, error) {
	index := l.index[string(req.Label)]
	first := 0
	if req.GreatestVersion != nil {
		first = int(*req.GreatestVersion) + 1
	}
	if first >= len(index) {
		return nil, errors.New("nothing is newer")
	}
	position, end := index[first], first
	response := &structs.UpdateResponse{Position: position}
	for ; end < len(index) && index[end] == position; end++ {
		stored, err := l.version(req.Label, uint32(end))
		if err != nil {
			return nil, err
		}
		response.Values = append(response.Values, structs.LabelValue{Value: stored.Value.Value})
		response.Info = append(response.Info, structs.UpdateInfo{Opening: stored.Opening})
	}
	for _, version := range updateVersions(req.GreatestVersion, uint32(end-1)) {
		step := structs.BinaryLadderStep{}
		_, step.Proof = l.evaluate(req.Label, version)
		if int(version) < first {
			stored, err := l.version(req.Label, version)
			if err != nil {
				return nil, err
			}
			step.Commitment, err = commitmentTo(req.Label, version, stored)
			if err != nil {
				return nil, err
			}
		}
		response.BinaryLadder = append(response.BinaryLadder, step)
	}
	head, proof, err := l.proveUpdate(req, index, position, end-first)
	if err != nil {
		return nil, err
	}
	response.FullTreeHead, response.Update = *head, *proof
	return response, nil
}

func (l *katieLog) proveUpdate(
	req *structs.UpdateRequest, index []uint64, position uint64, count int,
) (*structs.FullTreeHead, *structs.CombinedTreeProof, error) {
	n := l.size()
	handle := algorithms.NewProducedProofHandle(suite, l.store, index)
	provider := algorithms.NewDataProvider(suite, handle)
	head := &structs.FullTreeHead{TreeHead: l.tree.TreeHead()}
	if last := req.Last; last != nil {
		entries, err := l.entries(math.Frontier(*last))
		if err != nil {
			return nil, nil, err
		} else if err := provider.AddRetained(nil, entries); err != nil {
			return nil, nil, err
		}
		if *last == n {
			head = &structs.FullTreeHead{}
		}
	}
	if err := algorithms.UpdateView(l.config.Public(), n, req.Last, provider); err != nil {
		return nil, nil, err
	}
	monitor, err := algorithms.NewMonitor(l.config.Public(), n, provider)
	if err != nil {
		return nil, nil, err
	}
	known := 0
	if req.GreatestVersion != nil {
		known = int(*req.GreatestVersion) + 1
	}
	monitor.Owner = &algorithms.OwnerState{VerAtStarting: -1, UpcomingVers: slices.Clone(index[:known])}
	if err := monitor.Update(position, count); err != nil {
		return nil, nil, err
	}
	for version := range handle.RequiredVersions() {
		output, _ := l.evaluate(req.Label, version)
		if err := handle.AddVersion(version, output); err != nil {
			return nil, nil, err
		}
	}
	proof, err := provider.Output(n, nil, req.Last)
	return head, proof, err
}

func (l *katieLog) entries(positions []uint64) (map[uint64]structs.LogEntry, error) {
	stored, err := l.store.BatchGet(positions)
	if err != nil {
		return nil, err
	}
	entries := make(map[uint64]structs.LogEntry)
	for position, raw := range stored {
		entry, err := structs.NewLogEntry(suite, bytes.NewBuffer(raw))
		if err != nil {
			return nil, err
		}
		entries[position] = *entry
	}
	return entries, nil
}

func (l *katieLog) version(label []byte, version uint32) (*structs.OpeningAndValue, error) {
	raw, err := l.store.GetVersion(label, version)
	if err != nil {
		return nil, err
	}
	return structs.NewOpeningAndValue(l.config.Public(), bytes.NewBuffer(raw))
}

func (l *katieLog) evaluate(label []byte, version uint32) (output, proof []byte) {
	return l.config.VrfKey.Prove(vrfInput(label, version))
}

func vrfInput(label []byte, version uint32) []byte {
	input, err := structs.Marshal(&structs.VrfInput{Label: label, Version: version})
	if err != nil {
		panic(err)
	}
	return input
}

func commitmentTo(label []byte, version uint32, opened *structs.OpeningAndValue) ([]byte, error) {
	body, err := structs.Marshal(&structs.CommitmentValue{
		Label: label, Version: version, Update: opened.Value,
	})
	if err != nil {
		return nil, err
	}
	return commitments.Commit(suite, opened.Opening, body), nil
}
