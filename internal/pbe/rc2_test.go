package pbe

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The vectors of RFC 2268 section 5 whose effective key is as long as the key.
func TestRC2AgreesWithTheVectorsOfItsRFC(t *testing.T) {
	for _, v := range []struct{ key, plain, cipher string }{
		{"ffffffffffffffff", "ffffffffffffffff", "278b27e42e2f0d49"},
		{"3000000000000000", "1000000000000001", "30649edf9be7d2c2"},
		{"88bca90e90875a7f0f79c384627bafb2", "0000000000000000", "2269552ab0f85ca6"},
	} {
		key, _ := hex.DecodeString(v.key)
		plain, _ := hex.DecodeString(v.plain)
		block, err := newRC2(key)
		require.NoError(t, err)
		got := make([]byte, len(plain))
		block.Encrypt(got, plain)
		assert.Equal(t, v.cipher, hex.EncodeToString(got))
		block.Decrypt(got, got)
		assert.Equal(t, plain, got)
	}
}
