package sqlite

import (
	"context"
	"fmt"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// UseSealingKey implements [store.Sealing].
func (s *Store) UseSealingKey(ctx context.Context, key store.SealingKey) error {
	if key.ID != "" && len(key.Check) == 0 {
		return fmt.Errorf("%w: a key without a check", store.ErrInvalid)
	}
	return s.submit(ctx, &request{apply: func(ctx context.Context, g *group) error {
		if _, err := g.db.conn.ExecContext(ctx, "UPDATE sealing SET last = ? WHERE last IS NULL AND key_id <> ?", g.lastMessage, key.ID); err != nil {
			return err
		}
		if key.ID == "" {
			return nil
		}
		_, err := g.db.conn.ExecContext(ctx, "INSERT OR REPLACE INTO sealing (key_id, key_check) VALUES (?, ?)", key.ID, key.Check)
		return err
	}})
}

// SealingKeys implements [store.Sealing].
func (s *Store) SealingKeys(ctx context.Context) ([]store.SealingKey, error) {
	return read(s, func(db *database) ([]store.SealingKey, error) {
		rows, err := db.browsers.QueryContext(ctx, `
			SELECT key_id, key_check FROM sealing, (SELECT min(id) AS oldest FROM message) AS m
			WHERE m.oldest <= sealing.last OR m.oldest IS NOT NULL AND sealing.last IS NULL ORDER BY key_id`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []store.SealingKey
		for rows.Next() {
			var key store.SealingKey
			if err := rows.Scan(&key.ID, &key.Check); err != nil {
				return nil, err
			}
			list = append(list, key)
		}
		return list, rows.Err()
	})
}
