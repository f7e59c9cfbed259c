module quicprochat.invalid/tests/interop/katie

go 1.25

require (
	github.com/Bren2010/katie v0.0.0-20260630213454-00da52541f6a
	github.com/syndtr/goleveldb v1.0.0
)

require (
	filippo.io/edwards25519 v1.1.0 // indirect
	filippo.io/nistec v0.0.3 // indirect
	github.com/golang/snappy v0.0.0-20180518054509-2e65f85255db // indirect
)
