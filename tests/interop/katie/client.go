// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/Bren2010/katie/tree/log"
	"github.com/Bren2010/katie/tree/prefix"
	"github.com/Bren2010/katie/tree/transparency/algorithms"
	"github.com/Bren2010/katie/tree/transparency/math"
	"github.com/Bren2010/katie/tree/transparency/structs"
)

// client verifies responses with katie's algorithms, proofs and codecs. katie's own Client cannot be
// driven through a history (docs/reference/katie-differences.md); where it can be asked, it is.
type client struct {
	config *structs.PublicConfig
	view   *structs.ClientState
	labels map[string]*label
}

// label is what a user keeps of one label.
type label struct {
	known map[uint32]prefix.Entry
	owner *algorithms.OwnerState
}

func newClient(c *configMessage) (*client, error) {
	config, _, err := c.private()
	if err != nil {
		return nil, err
	}
	return &client{config: config.Public(), labels: make(map[string]*label)}, nil
}

func (c *client) label(name []byte) *label {
	known, ok := c.labels[string(name)]
	if !ok {
		known = &label{known: make(map[uint32]prefix.Entry)}
		c.labels[string(name)] = known
	}
	return known
}

// outcome is what a verified response says, to be compared with what the other side took from it.
type outcome struct {
	Size uint64 `json:"size"`
	Root []byte `json:"root"`

	Version     uint32 `json:"version"`
	Value       []byte `json:"value"`
	Terminal    uint64 `json:"terminal"`
	MustMonitor bool   `json:"mustMonitor"`

	// Map is the monitoring map after a round, as [position, version], ascending.
	Map [][2]uint64 `json:"map"`

	Start          uint64   `json:"start"`
	VersionAtStart int      `json:"versionAtStart"`
	Upcoming       []uint64 `json:"upcoming"`

	Created [][]byte `json:"created"`
}

// replay is a response under verification: what it showed becomes state only when all of it held.
type replay struct {
	client *client
	head   structs.FullTreeHead
	last   *uint64
	view   *structs.ClientState // before

	n        uint64
	handle   *algorithms.ReceivedProofHandle
	provider *algorithms.DataProvider

	after *structs.ClientState
	out   outcome
}

func (c *client) replay(m *message, last *uint64, head structs.FullTreeHead, proof structs.CombinedTreeProof) (*replay, error) {
	r := &replay{client: c, head: head, last: last, view: c.view}
	if m.Fresh {
		r.view = nil
	}
	if have := r.view != nil; have != (last != nil) || have && r.view.TreeHead.TreeSize != *last {
		return nil, fmt.Errorf("the request advertises another size than this client has")
	}
	switch {
	case head.TreeHead != nil:
		r.n = head.TreeHead.TreeSize
		if last != nil && r.n <= *last {
			return nil, refused(errors.New("tree size not above the advertised one"))
		}
	case last != nil:
		r.n = *last
	default:
		return nil, refused(errors.New("same head for a new user"))
	}
	r.handle = algorithms.NewReceivedProofHandle(suite, proof)
	r.provider = algorithms.NewDataProvider(suite, r.handle)
	if r.view != nil {
		if err := r.provider.AddRetained(r.view.FullSubtrees, r.view.LogEntries); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// run updates the view and then runs an algorithm over the versions that are known.
func (r *replay) run(known map[uint32]prefix.Entry, algorithm func() error) error {
	for version, entry := range known {
		if err := r.handle.AddVersion(version, entry.VrfOutput, entry.Commitment); err != nil {
			return err
		}
	}
	if err := algorithms.UpdateView(r.client.config, r.n, r.last, r.provider); err != nil {
		return refused(err)
	} else if err := algorithm(); err != nil {
		return refused(err)
	}
	result, err := r.provider.Finish(r.n, nil, r.last)
	if err != nil {
		return refused(err)
	}
	root, err := log.Root(suite, r.n, result.FullSubtrees)
	if err != nil {
		return refused(err)
	}
	r.after = &structs.ClientState{FullSubtrees: result.FullSubtrees, LogEntries: result.LogEntries}
	if r.head.TreeHead == nil {
		r.after.TreeHead = r.view.TreeHead
	} else {
		r.after.TreeHead = *r.head.TreeHead
		signed, err := structs.Marshal(&structs.TreeHeadTBS{Config: r.client.config, TreeSize: r.n, Root: root})
		if err != nil {
			return err
		} else if !r.client.config.SignatureKey.Verify(signed, r.head.TreeHead.Signature) {
			return refused(errors.New("signature of the tree head"))
		}
	}
	r.out.Size, r.out.Root = r.n, root
	return nil
}

// ladder verifies the VRF proofs of a binary ladder; commitments of `made` are computed, not given.
func (c *client) ladder(
	name []byte, versions []uint32, steps []structs.BinaryLadderStep, made map[uint32][]byte,
) (map[uint32]prefix.Entry, error) {
	if len(steps) != len(versions) {
		return nil, refused(errors.New("number of ladder steps"))
	}
	known := make(map[uint32]prefix.Entry)
	for i, version := range versions {
		output, err := c.config.VrfKey.Verify(vrfInput(name, version), steps[i].Proof)
		if err != nil {
			return nil, refused(err)
		}
		commitment := steps[i].Commitment
		if own, ok := made[version]; ok {
			if commitment != nil {
				return nil, refused(errors.New("commitment of a version whose value is known"))
			}
			commitment = own
		}
		known[version] = prefix.Entry{VrfOutput: output, Commitment: commitment}
	}
	return known, nil
}

func (c *client) verify(m *message) (*reply, error) {
	var (
		r    *replay
		name []byte
		next *label
		err  error
	)
	switch m.Kind {
	case "search":
		r, name, next, err = c.search(m)
	case "contactMonitor":
		r, name, next, err = c.contactMonitor(m)
	case "ownerInit":
		r, name, next, err = c.ownerInit(m)
	case "ownerMonitor":
		r, name, next, err = c.ownerMonitor(m)
	case "update":
		r, name, next, err = c.update(m)
	default:
		err = fmt.Errorf("unknown kind %q", m.Kind)
	}
	if err != nil {
		return nil, err
	}
	library := ""
	if m.Ask {
		library = c.askLibrary(m, r.view, c.label(name))
	}
	if !m.Dry {
		c.view = r.after
		c.labels[string(name)] = next
	}
	return &reply{Outcome: &r.out, Library: library}, nil
}

// response decodes all of a response.
func response[T any](c *client, raw []byte, decode func(*structs.PublicConfig, *bytes.Buffer) (*T, error)) (*T, error) {
	return request(raw, func(buf *bytes.Buffer) (*T, error) { return decode(c.config, buf) })
}

// endless refuses for katie what it would compute forever: its ladders of uint32 have no end from
// here on, and fill the memory.
func endless(versions ...uint32) error {
	for _, version := range versions {
		if version >= 1<<31-1 {
			return refused(errors.New("version without an end to its ladder"))
		}
	}
	return nil
}

func (c *client) search(m *message) (*replay, []byte, *label, error) {
	req, err := request(m.Request, structs.NewSearchRequest)
	if err != nil {
		return nil, nil, nil, err
	}
	res, err := request(m.Response, func(buf *bytes.Buffer) (*structs.SearchResponse, error) {
		return structs.NewSearchResponse(c.config, req, buf)
	})
	if err != nil {
		return nil, nil, nil, err
	}
	target := req.Version
	if target == nil {
		target = res.Version
	}
	if err := endless(*target); err != nil {
		return nil, nil, nil, err
	}
	made, err := commitmentTo(req.Label, *target, &structs.OpeningAndValue{Opening: res.Opening, Value: res.Value})
	if err != nil {
		return nil, nil, nil, err
	}
	versions := math.SearchBinaryLadder(*target, *target, nil, nil)
	known, err := c.ladder(req.Label, versions, res.BinaryLadder, map[uint32][]byte{*target: made})
	if err != nil {
		return nil, nil, nil, err
	}
	r, err := c.replay(m, req.Last, res.FullTreeHead, res.Search)
	if err != nil {
		return nil, nil, nil, err
	}
	err = r.run(known, func() (err error) {
		if req.Version == nil {
			r.out.Terminal, err = algorithms.GreatestVersionSearch(c.config, *target, r.n, r.provider)
		} else {
			r.out.Terminal, err = algorithms.FixedVersionSearch(c.config, *target, r.n, r.provider)
		}
		return err
	})
	if err != nil {
		return nil, nil, nil, err
	}
	distinguished, err := algorithms.RightmostDistinguished(c.config, r.n, r.provider)
	if err != nil {
		return nil, nil, nil, refused(err)
	}
	r.out.Version, r.out.Value = *target, res.Value.Value
	r.out.MustMonitor = distinguished == nil || r.out.Terminal > *distinguished
	return r, req.Label, c.label(req.Label).with(known), nil
}

// with adds what a response showed of versions; a commitment, once known, stays.
func (l *label) with(shown map[uint32]prefix.Entry) *label {
	next := &label{known: make(map[uint32]prefix.Entry), owner: l.owner}
	for _, from := range []map[uint32]prefix.Entry{l.known, shown} {
		for version, entry := range from {
			if entry.Commitment != nil || next.known[version].Commitment == nil {
				next.known[version] = entry
			}
		}
	}
	return next
}

func (r *replay) monitor(entries []structs.MonitorMapEntry, owner *algorithms.OwnerState) (*algorithms.Monitor, error) {
	monitor, err := algorithms.NewMonitor(r.client.config, r.n, r.provider)
	if err != nil {
		return nil, err
	}
	monitor.Contact = algorithms.NewContactState(entries)
	if owner != nil {
		monitor.Owner = owner.Clone()
	}
	return monitor, nil
}

func (r *replay) tell(monitor *algorithms.Monitor) {
	r.out.Map = [][2]uint64{}
	if monitor.Contact != nil {
		for _, entry := range monitor.Contact.Struct() {
			r.out.Map = append(r.out.Map, [2]uint64{entry.Position, uint64(entry.Version)})
		}
	}
	if monitor.Owner != nil {
		r.out.Start = monitor.Owner.Starting
		r.out.VersionAtStart = monitor.Owner.VerAtStarting
		r.out.Upcoming = monitor.Owner.UpcomingVers
	}
}

func (c *client) contactMonitor(m *message) (*replay, []byte, *label, error) {
	req, err := request(m.Request, structs.NewContactMonitorRequest)
	if err != nil {
		return nil, nil, nil, err
	}
	res, err := response(c, m.Response, structs.NewContactMonitorResponse)
	if err != nil {
		return nil, nil, nil, err
	}
	r, err := c.replay(m, req.Last, res.FullTreeHead, res.Monitor)
	if err != nil {
		return nil, nil, nil, err
	}
	mine := c.label(req.Label)
	err = r.run(mine.known, func() error {
		monitor, err := r.monitor(req.Entries, nil)
		if err != nil {
			return err
		} else if err := monitor.ContactMonitor(); err != nil {
			return err
		}
		r.tell(monitor)
		return nil
	})
	return r, req.Label, mine, err
}

// searchVersions are all versions that ladders for these greatest versions look up, and zero.
func searchVersions(greatest ...uint32) []uint32 {
	versions := []uint32{0}
	for _, version := range greatest {
		versions = append(versions, math.SearchBinaryLadder(version, version, nil, nil)...)
	}
	slices.Sort(versions)
	return slices.Compact(versions)
}

// updateVersions are those whose VRF proofs an update carries (section 9.1).
func updateVersions(before *uint32, greatest uint32) []uint32 {
	known, first := []uint32{0}, uint32(0)
	if before != nil {
		known = math.SearchBinaryLadder(*before, *before, nil, nil)
		first = *before + 1
	}
	versions := math.SearchBinaryLadder(greatest, greatest, nil, nil)
	for version := first; version < greatest; version++ {
		versions = append(versions, version)
	}
	versions = slices.DeleteFunc(versions, func(v uint32) bool { return slices.Contains(known, v) })
	slices.Sort(versions)
	return slices.Compact(versions)
}

func (c *client) ownerInit(m *message) (*replay, []byte, *label, error) {
	req, err := request(m.Request, structs.NewOwnerInitRequest)
	if err != nil {
		return nil, nil, nil, err
	}
	res, err := response(c, m.Response, structs.NewOwnerInitResponse)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := endless(res.GreatestVersions...); err != nil {
		return nil, nil, nil, err
	}
	known, err := c.ladder(req.Label, searchVersions(res.GreatestVersions...), res.BinaryLadder, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, version := range res.GreatestVersions {
		if known[version].Commitment == nil {
			return nil, nil, nil, refused(errors.New("greatest version without a commitment"))
		}
	}
	r, err := c.replay(m, req.Last, res.FullTreeHead, res.Init)
	if err != nil {
		return nil, nil, nil, err
	}
	next := c.label(req.Label).with(known)
	err = r.run(known, func() error {
		monitor, err := r.monitor(nil, nil)
		if err != nil {
			return err
		} else if _, err := monitor.OwnerInit(req.Start, res.GreatestVersions); err != nil {
			return err
		}
		next.owner = monitor.Owner
		r.tell(monitor)
		return nil
	})
	return r, req.Label, next, err
}

// owned is the state of a label whose owner made this request.
func (c *client) owned(name []byte, greatest *uint32) (*label, error) {
	mine := c.label(name)
	if mine.owner == nil {
		return nil, errors.New("the label has no owner here")
	}
	known := -1
	if greatest != nil {
		known = int(*greatest)
	}
	if have := mine.owner.GreatestVersion(); have != known {
		return nil, fmt.Errorf("the owner knows version %d here, not %d", have, known)
	}
	return mine, nil
}

func (c *client) ownerMonitor(m *message) (*replay, []byte, *label, error) {
	req, err := request(m.Request, structs.NewOwnerMonitorRequest)
	if err != nil {
		return nil, nil, nil, err
	}
	res, err := response(c, m.Response, structs.NewOwnerMonitorResponse)
	if err != nil {
		return nil, nil, nil, err
	}
	mine, err := c.owned(req.Label, req.GreatestVersion)
	if err != nil {
		return nil, nil, nil, err
	} else if mine.owner.Starting != req.Start {
		return nil, nil, nil, errors.New("the owner starts elsewhere here")
	}
	r, err := c.replay(m, req.Last, res.FullTreeHead, res.Monitor)
	if err != nil {
		return nil, nil, nil, err
	}
	next := mine.with(nil)
	err = r.run(mine.known, func() error {
		monitor, err := r.monitor(req.Entries, mine.owner)
		if err != nil {
			return err
		} else if err := monitor.ContactMonitor(); err != nil {
			return err
		} else if err := monitor.OwnerMonitor(); err != nil {
			return err
		}
		next.owner = monitor.Owner
		r.tell(monitor)
		return nil
	})
	return r, req.Label, next, err
}

func (c *client) update(m *message) (*replay, []byte, *label, error) {
	req, err := request(m.Request, structs.NewUpdateRequest)
	if err != nil {
		return nil, nil, nil, err
	}
	res, err := response(c, m.Response, structs.NewUpdateResponse)
	if err != nil {
		return nil, nil, nil, err
	}
	mine, err := c.owned(req.Label, req.GreatestVersion)
	if err != nil {
		return nil, nil, nil, err
	}
	values := res.Values
	if len(values) == 0 {
		values = req.Values
	}
	if len(res.Info) == 0 || len(res.Info) != len(values) {
		return nil, nil, nil, refused(errors.New("number of openings"))
	}
	first := uint32(mine.owner.GreatestVersion() + 1)
	made := make(map[uint32][]byte)
	for i, info := range res.Info {
		version := first + uint32(i)
		opened := &structs.OpeningAndValue{Opening: info.Opening}
		opened.Value.Value = values[i].Value
		if made[version], err = commitmentTo(req.Label, version, opened); err != nil {
			return nil, nil, nil, err
		}
	}
	greatest := first + uint32(len(values)) - 1
	versions := updateVersions(req.GreatestVersion, greatest)
	shown, err := c.ladder(req.Label, versions, res.BinaryLadder, made)
	if err != nil {
		return nil, nil, nil, err
	}
	for version, commitment := range made {
		// Version zero, for a label without any, is known from owner initialization.
		if _, ok := shown[version]; !ok {
			shown[version] = prefix.Entry{VrfOutput: mine.known[version].VrfOutput, Commitment: commitment}
		}
	}
	for _, version := range versions {
		if version > greatest && shown[version].Commitment != nil {
			return nil, nil, nil, refused(errors.New("commitment of a version that is not there"))
		}
	}
	r, err := c.replay(m, req.Last, res.FullTreeHead, res.Update)
	if err != nil {
		return nil, nil, nil, err
	}
	next := mine.with(shown)
	err = r.run(next.known, func() error {
		monitor, err := r.monitor(nil, mine.owner)
		if err != nil {
			return err
		}
		monitor.Contact = nil
		if err := monitor.Update(res.Position, len(res.Info)); err != nil {
			return err
		}
		next.owner = monitor.Owner
		r.tell(monitor)
		return nil
	})
	for _, value := range values {
		if r != nil {
			r.out.Created = append(r.out.Created, value.Value)
		}
	}
	return r, req.Label, next, err
}
