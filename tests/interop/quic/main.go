// A client of the qpc wire on quic-go, a QUIC that shares no code with ours: it presents a
// self-made Ed25519 certificate, checks the listener's pin, and sends frames that it reads from
// standard input (one in hexadecimal per line), each on a stream of its own. It prints the answers
// in the same order and form. Usage: quic-go HOST:PORT PIN (SHA-256 SPKI, hexadecimal) [negotiate |
// anonymous]: begins with a version that we do not speak; shows no certificate.
package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const responseHeaderBytes = 9

func main() {
	mode := ""
	if len(os.Args) > 3 {
		mode = os.Args[3]
	}
	if err := run(os.Args[1], os.Args[2], mode); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, pin, mode string) error {
	certificate, err := selfMade()
	if err != nil {
		return err
	}
	certificates := []tls.Certificate{certificate}
	if mode == "anonymous" {
		certificates = nil
	}
	versions := []quic.Version{quic.Version1}
	if mode == "negotiate" {
		versions = []quic.Version{quic.Version2, quic.Version1}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	connection, err := quic.DialAddr(ctx, address, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{"qpc"},
		Certificates:       certificates,
		ServerName:         "qpc",
		InsecureSkipVerify: true, // The pin below is the identity.
		VerifyPeerCertificate: func(chain [][]byte, _ [][]*x509.Certificate) error {
			return checkPin(chain, pin)
		},
	}, &quic.Config{Versions: versions})
	if err != nil {
		return err
	}
	defer connection.CloseWithError(0, "done")
	if version := connection.ConnectionState().Version; version != quic.Version1 {
		return fmt.Errorf("version %x was chosen", uint32(version))
	}
	var requests [][]byte
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		request, err := hex.DecodeString(lines.Text())
		if err != nil {
			return err
		}
		requests = append(requests, request)
	}
	answers := make([][]byte, len(requests))
	failures := make([]error, len(requests))
	var calls sync.WaitGroup
	for i, request := range requests {
		calls.Add(1)
		go func() {
			defer calls.Done()
			answers[i], failures[i] = call(ctx, connection, request)
		}()
	}
	calls.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	for _, answer := range answers {
		fmt.Println(hex.EncodeToString(answer))
	}
	return nil
}

func call(ctx context.Context, connection *quic.Conn, request []byte) ([]byte, error) {
	stream, err := connection.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := stream.Write(request); err != nil {
		return nil, err
	}
	if err := stream.Close(); err != nil {
		return nil, err
	}
	header := make([]byte, responseHeaderBytes)
	if _, err := io.ReadFull(stream, header); err != nil {
		return nil, err
	}
	payload := make([]byte, binary.BigEndian.Uint32(header[5:]))
	if _, err := io.ReadFull(stream, payload); err != nil {
		return nil, err
	}
	return append(header, payload...), nil
}

func selfMade() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "qpc"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}

func checkPin(chain [][]byte, pin string) error {
	if len(chain) == 0 {
		return errors.New("the listener has no certificate")
	}
	certificate, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	digest := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	if hex.EncodeToString(digest[:]) != pin {
		return errors.New("not the pinned listener")
	}
	return nil
}
