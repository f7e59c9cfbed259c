// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/Bren2010/katie/tree/transparency"
	"github.com/Bren2010/katie/tree/transparency/structs"
)

// libraryStore lends a Client the state of this harness for one response.
type libraryStore struct {
	view  []byte
	label []byte
	state []byte // of the label; nil for none
}

func (s *libraryStore) GetState() ([]byte, error)                           { return s.view, nil }
func (s *libraryStore) GetLabelState([]byte) ([]byte, error)                { return nil, nil }
func (s *libraryStore) GetStaleLabel(uint64) ([]byte, []byte, error)        { return s.label, s.state, nil }
func (s *libraryStore) PutState([]byte) error                               { return nil }
func (s *libraryStore) PutLabelState(_, _, _ []byte, terminal uint64) error { return nil }

// askLibrary gives the response to katie's own Client, with the state that this client had before.
func (c *client) askLibrary(m *message, view *structs.ClientState, mine *label) (verdict string) {
	defer func() {
		if cause := recover(); cause != nil {
			verdict = fmt.Sprintf("panic: %v", cause)
		}
	}()
	if err := c.libraryVerifies(m, view, mine); err != nil {
		return err.Error()
	}
	return "accepted"
}

func (c *client) libraryVerifies(m *message, view *structs.ClientState, mine *label) error {
	store := &libraryStore{}
	if view != nil {
		raw, err := structs.Marshal(view)
		if err != nil {
			return err
		}
		store.view = raw
	}
	library, err := transparency.NewClient(c.config, store)
	if err != nil {
		return err
	}
	switch m.Kind {
	case "search":
		req, err := request(m.Request, structs.NewSearchRequest)
		if err != nil {
			return err
		}
		res, err := request(m.Response, func(buf *bytes.Buffer) (*structs.SearchResponse, error) {
			return structs.NewSearchResponse(c.config, req, buf)
		})
		if err != nil {
			return err
		}
		var verify transparency.VerifyFunc[*structs.SearchResponse]
		if req.Version == nil {
			_, verify, err = library.GreatestVersionSearch(req.Label)
		} else {
			_, verify, err = library.FixedVersionSearch(req.Label, *req.Version)
		}
		if err != nil {
			return err
		}
		return verify(res)
	case "contactMonitor":
		req, err := request(m.Request, structs.NewContactMonitorRequest)
		if err != nil {
			return err
		}
		res, err := response(c, m.Response, structs.NewContactMonitorResponse)
		if err != nil {
			return err
		}
		state := &structs.ClientLabelState{Contact: req.Entries}
		for version, entry := range mine.known {
			state.Versions = append(state.Versions, structs.RetainedVersion{
				Version: version, VrfOutput: entry.VrfOutput, Commitment: entry.Commitment,
			})
		}
		if store.state, err = structs.Marshal(state); err != nil {
			return err
		}
		store.label = req.Label
		_, verify, err := library.Monitor()
		if err != nil {
			return err
		} else if verify == nil {
			return errors.New("nothing to monitor")
		}
		return verify(res)
	}
	return errors.New("not asked")
}
