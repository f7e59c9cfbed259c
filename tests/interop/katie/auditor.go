// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"

	"github.com/Bren2010/katie/crypto/suites"
	"github.com/Bren2010/katie/db/memory"
	"github.com/Bren2010/katie/tree/log"
	"github.com/Bren2010/katie/tree/transparency/auditor"
	"github.com/Bren2010/katie/tree/transparency/structs"
)

// auditorState is katie's Auditor, made anew from its stored state for each update: that is how it
// lives through a restart, and how a refused update leaves no trace.
type auditorState struct {
	config *structs.PublicConfig
	key    suites.SigningPrivateKey
	store  *memory.AuditorStore
}

func newAuditor(c *configMessage) (*auditorState, error) {
	config, key, err := c.private()
	if err != nil {
		return nil, err
	} else if key == nil {
		return nil, errors.New("an auditor needs a key")
	}
	return &auditorState{config.Public(), key, memory.NewAuditorStore()}, nil
}

func (a *auditorState) process(raw []byte, dry bool) (*reply, error) {
	update, err := request(raw, func(buf *bytes.Buffer) (*structs.AuditorUpdate, error) {
		return structs.NewAuditorUpdate(suite, buf)
	})
	if err != nil {
		return nil, err
	}
	store := &memory.AuditorStore{Data: a.store.Data}
	katie, err := auditor.NewAuditor(a.config, a.key, store)
	if err != nil {
		return nil, err
	} else if err := katie.Process(update); err != nil {
		return nil, refused(err)
	}
	head, err := katie.Commit()
	if err != nil {
		return nil, refused(err)
	}
	encoded, err := structs.Marshal(head)
	if err != nil {
		return nil, err
	}
	state, err := auditor.NewAuditorState(suite, bytes.NewBuffer(store.Data))
	if err != nil {
		return nil, err
	}
	root, err := log.Root(suite, head.TreeSize, state.FullSubtrees)
	if err != nil {
		return nil, err
	}
	if !dry {
		a.store = store
	}
	return &reply{Root: root, Head: encoded}, nil
}
