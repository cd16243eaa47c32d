// Histories of a key manager on several machines, judged by a model of a key. In no release: the program neither contains
// nor needs it.
module claviger/cluster

go 1.25.0

require (
	aead.dev/mtls v0.2.1
	github.com/anishathalye/porcupine v1.3.1
	github.com/minio/kms-go/kms v0.5.1-0.20250225090116-4e64ce8d0f35
)

require (
	aead.dev/mem v0.2.0 // indirect
	google.golang.org/protobuf v1.33.0 // indirect
)
