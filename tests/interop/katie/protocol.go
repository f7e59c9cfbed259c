// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/Bren2010/katie/crypto/suites"
	"github.com/Bren2010/katie/tree/transparency/structs"
)

// suite is KT_128_SHA256_Ed25519, the only one that both sides have.
var suite = suites.KTSha256Ed25519{}

// message is one line from the other side. Byte strings are base64.
type message struct {
	Op   string `json:"op"`
	AtMs int64  `json:"atMs"` // the time at which it happens; never goes back
	ID   int    `json:"id"`   // of the log, client or auditor that it is for

	Config *configMessage `json:"config,omitempty"`

	Add []labelValue `json:"add,omitempty"` // mutate

	Kind     string `json:"kind,omitempty"` // serve, verify: the operation
	Request  []byte `json:"request,omitempty"`
	Response []byte `json:"response,omitempty"`
	// Dry leaves the state as it is; Fresh verifies as a user without any.
	Dry   bool `json:"dry,omitempty"`
	Fresh bool `json:"fresh,omitempty"`
	// Ask gives a response that was accepted to katie's own Client as well.
	Ask bool `json:"ask,omitempty"`

	Update []byte `json:"update,omitempty"` // audit: an AuditorUpdate
}

type labelValue struct {
	Label []byte `json:"label"`
	Value []byte `json:"value"`
}

// configMessage makes a log's configuration; all keys are Ed25519 seeds.
type configMessage struct {
	SignatureSeed []byte `json:"signatureSeed"`
	VrfSeed       []byte `json:"vrfSeed"`
	AuditorSeed   []byte `json:"auditorSeed,omitempty"` // present: third-party auditing
	MaxAheadMs    uint64 `json:"maxAheadMs"`
	MaxBehindMs   uint64 `json:"maxBehindMs"`
	WindowMs      uint64 `json:"windowMs"`
	LifetimeMs    uint64 `json:"lifetimeMs"` // 0: none
}

func (c *configMessage) private() (*structs.PrivateConfig, suites.SigningPrivateKey, error) {
	signature, err := suite.ParseSigningPrivateKey(c.SignatureSeed)
	if err != nil {
		return nil, nil, err
	}
	vrf, err := suite.ParseVRFPrivateKey(c.VrfSeed)
	if err != nil {
		return nil, nil, err
	}
	config := &structs.PrivateConfig{
		SignatureKey: signature,
		VrfKey:       vrf,
		Config: structs.Config{
			Suite:                      suite,
			Mode:                       structs.ContactMonitoring,
			MaxAhead:                   c.MaxAheadMs,
			MaxBehind:                  c.MaxBehindMs,
			ReasonableMonitoringWindow: c.WindowMs,
			MaximumLifetime:            c.LifetimeMs,
		},
	}
	if c.AuditorSeed == nil {
		return config, nil, nil
	}
	auditor, err := suite.ParseSigningPrivateKey(c.AuditorSeed)
	if err != nil {
		return nil, nil, err
	}
	config.Mode = structs.ThirdPartyAuditing
	config.MaxAuditorLag = 1
	config.AuditorPublicKey = auditor.Public()
	return config, auditor, nil
}

// reply is one line to the other side. Refused is what katie said no with; Fault is a mistake of the
// harness and ends the run.
type reply struct {
	Fault   string `json:"fault,omitempty"`
	Refused string `json:"refused,omitempty"`

	ID       int    `json:"id,omitempty"`
	Config   []byte `json:"config,omitempty"`
	Root     []byte `json:"root,omitempty"`
	Entry    []byte `json:"entry,omitempty"`
	Update   []byte `json:"update,omitempty"`
	Head     []byte `json:"head,omitempty"`
	Response []byte `json:"response,omitempty"`

	Outcome *outcome `json:"outcome,omitempty"`
	// Library tells what katie's own Client made of the same response, where it can be asked.
	Library string `json:"library,omitempty"`
}

// refusal is an answer of katie's, in contrast to a fault of the harness.
type refusal struct{ reason string }

func (r refusal) Error() string { return r.reason }

// refused marks an error as katie's own.
func refused(err error) error {
	if err == nil {
		return nil
	}
	return refusal{err.Error()}
}

// world holds everything that was made so far.
type world struct {
	logs     []*katieLog
	clients  []*client
	auditors []*auditorState
}

// serve answers line by line until the input ends. Time is that of the bubble it runs in: sleeping
// moves it, and nothing else does.
func serve(in io.Reader, out io.Writer) error {
	var w world
	lines := bufio.NewReaderSize(in, 1<<20)
	encoded := bufio.NewWriter(out)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			return err
		}
		answer, err := json.Marshal(w.answer(&m))
		if err != nil {
			return err
		}
		if _, err := encoded.Write(append(answer, '\n')); err != nil {
			return err
		}
		if lines.Buffered() == 0 {
			if err := encoded.Flush(); err != nil {
				return err
			}
		}
	}
}

// answer never panics: a panic inside katie is one way of refusing.
func (w *world) answer(m *message) (r *reply) {
	defer func() {
		if cause := recover(); cause != nil {
			r = &reply{Refused: fmt.Sprintf("panic: %v", cause)}
		}
	}()
	if wait := m.AtMs - time.Now().UnixMilli(); wait > 0 {
		time.Sleep(time.Duration(wait) * time.Millisecond)
	} else if wait < 0 {
		return &reply{Fault: fmt.Sprintf("time goes back by %d ms", -wait)}
	}
	r, err := w.dispatch(m)
	var no refusal
	switch {
	case errors.As(err, &no):
		return &reply{Refused: no.reason}
	case err != nil:
		return &reply{Fault: err.Error()}
	}
	return r
}

func (w *world) dispatch(m *message) (*reply, error) {
	switch m.Op {
	case "log":
		made, err := newLog(m.Config)
		if err != nil {
			return nil, err
		}
		w.logs = append(w.logs, made)
		config, err := structs.Marshal(made.config.Public())
		return &reply{ID: len(w.logs) - 1, Config: config}, err
	case "client":
		made, err := newClient(m.Config)
		if err != nil {
			return nil, err
		}
		w.clients = append(w.clients, made)
		return &reply{ID: len(w.clients) - 1}, nil
	case "auditor":
		made, err := newAuditor(m.Config)
		if err != nil {
			return nil, err
		}
		w.auditors = append(w.auditors, made)
		config, err := structs.Marshal(made.config)
		return &reply{ID: len(w.auditors) - 1, Config: config}, err
	case "forget": // a history has ended: nothing of it is asked for again
		*w = world{}
		return &reply{}, nil
	case "mutate":
		return w.logs[m.ID].mutate(m.Add)
	case "serve":
		return w.logs[m.ID].serve(m.Kind, m.Request)
	case "verify":
		return w.clients[m.ID].verify(m)
	case "audit":
		return w.auditors[m.ID].process(m.Update, m.Dry)
	}
	return nil, fmt.Errorf("unknown op %q", m.Op)
}
