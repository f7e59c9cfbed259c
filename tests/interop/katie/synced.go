// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/Bren2010/katie/db"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// syncedStore keeps what katie's Tree puts into it in a LevelDB database, as katie's own store does,
// but durably: one commit is one batch, and LevelDB syncs it before it counts. The bench asks what
// katie costs when it promises what a node promises.
type syncedStore struct {
	disk *leveldb.DB
	// pending is what the next commit writes; nil stands for a key that goes.
	pending map[string][]byte
}

var errReadOnly = errors.New("synced store: a clone only reads")

func newSyncedStore(folder string) (*syncedStore, error) {
	disk, err := leveldb.OpenFile(folder, nil)
	if err != nil {
		return nil, err
	}
	return &syncedStore{disk, make(map[string][]byte)}, nil
}

// get returns nil for a key that is not there.
func (s *syncedStore) get(key string) ([]byte, error) {
	if value, ok := s.pending[key]; ok {
		return bytes.Clone(value), nil
	}
	value, err := s.disk.Get([]byte(key), nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, nil
	}
	return value, err
}

func (s *syncedStore) put(key string, value []byte) error {
	if s.pending == nil {
		return errReadOnly
	}
	s.pending[key] = append([]byte{}, value...)
	return nil
}

func (s *syncedStore) remove(key string) error {
	if s.pending == nil {
		return errReadOnly
	}
	s.pending[key] = nil
	return nil
}

func (s *syncedStore) Commit() error {
	if s.pending == nil {
		return errReadOnly
	}
	batch := new(leveldb.Batch)
	for key, value := range s.pending {
		if value == nil {
			batch.Delete([]byte(key))
		} else {
			batch.Put([]byte(key), value)
		}
	}
	if err := s.disk.Write(batch, &opt.WriteOptions{Sync: true}); err != nil {
		return err
	}
	clear(s.pending)
	return nil
}

func (s *syncedStore) Clone() db.TransparencyStore { return &syncedStore{disk: s.disk} }

const (
	headKey        = "h"
	auditorHeadKey = "a"
)

func (s *syncedStore) GetTreeHead() (treeHead, auditor []byte, err error) {
	if treeHead, err = s.get(headKey); err != nil {
		return nil, nil, err
	}
	auditor, err = s.get(auditorHeadKey)
	return treeHead, auditor, err
}
func (s *syncedStore) PutTreeHead(raw []byte) error        { return s.put(headKey, raw) }
func (s *syncedStore) PutAuditorTreeHead(raw []byte) error { return s.put(auditorHeadKey, raw) }

func numbered(kind string, number uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte(kind), number))
}

// A version comes first, so that no label is the beginning of another key.
func versionKey(label []byte, version uint32) string {
	return string(append(binary.BigEndian.AppendUint32([]byte("v"), version), label...))
}

func (s *syncedStore) BatchGetIndex(labels [][]byte) ([][]byte, error) {
	found := make([][]byte, len(labels))
	for i, label := range labels {
		value, err := s.get("i" + string(label))
		if err != nil {
			return nil, err
		}
		found[i] = value
	}
	return found, nil
}
func (s *syncedStore) PutIndex(label, index []byte) error { return s.put("i"+string(label), index) }
func (s *syncedStore) DeleteIndex(label []byte) error     { return s.remove("i" + string(label)) }

func (s *syncedStore) GetVersion(label []byte, version uint32) ([]byte, error) {
	return s.get(versionKey(label, version))
}
func (s *syncedStore) PutVersion(label []byte, version uint32, data []byte) error {
	return s.put(versionKey(label, version), data)
}
func (s *syncedStore) DeleteVersion(label []byte, version uint32) error {
	return s.remove(versionKey(label, version))
}

// byNumber is a table of the store whose keys are numbers: log entries, or nodes of the log tree.
type byNumber struct {
	*syncedStore
	kind string
}

func (t byNumber) BatchGet(keys []uint64) (map[uint64][]byte, error) {
	return collect(t.syncedStore, keys, func(key uint64) string { return numbered(t.kind, key) })
}
func (t byNumber) Put(key uint64, value []byte) error { return t.put(numbered(t.kind, key), value) }
func (t byNumber) Delete(key uint64) error            { return t.remove(numbered(t.kind, key)) }

// byName is the table of the prefix tree.
type byName struct{ *syncedStore }

func (t byName) BatchGet(keys []string) (map[string][]byte, error) {
	return collect(t.syncedStore, keys, func(key string) string { return "p" + key })
}
func (t byName) Put(key string, value []byte) error { return t.put("p"+key, value) }
func (t byName) Delete(key string) error            { return t.remove("p" + key) }

func collect[K comparable](s *syncedStore, keys []K, name func(K) string) (map[K][]byte, error) {
	found := make(map[K][]byte, len(keys))
	for _, key := range keys {
		value, err := s.get(name(key))
		if err != nil {
			return nil, err
		} else if value != nil {
			found[key] = value
		}
	}
	return found, nil
}

func (s *syncedStore) entries() byNumber { return byNumber{s, "t"} }
func (s *syncedStore) BatchGet(keys []uint64) (map[uint64][]byte, error) {
	return s.entries().BatchGet(keys)
}
func (s *syncedStore) Put(key uint64, data []byte) error { return s.entries().Put(key, data) }
func (s *syncedStore) Delete(key uint64) error           { return s.entries().Delete(key) }
func (s *syncedStore) LogStore() db.LogStore             { return byNumber{s, "l"} }
func (s *syncedStore) PrefixStore() db.PrefixStore       { return byName{s} }
