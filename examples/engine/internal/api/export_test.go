package api

import "github.com/carewire/carewire/examples/engine/internal/users"

// A Line is what the tests see of a line of the route table.
type Line struct {
	Method, Pattern, Audit, Summary string
	// Public, Cluster and Least are the route's rule; of a route without one none
	// is set.
	Public, Cluster, Health, Page bool
	Least                         users.Role
}

// Table returns the route table.
func (s *Server) Table() []Line {
	var table []Line
	for _, r := range s.routes() {
		line := Line{Method: r.method, Pattern: r.pattern, Audit: r.audit, Summary: r.summary, Health: r.health, Page: r.page}
		switch r.access {
		case anyone:
			line.Public = true
		case nodes:
			line.Cluster = true
		case scrapers:
			line.Least = users.Viewer
		case viewers, operators, admins:
			line.Least = users.Role(r.access)
		}
		table = append(table, line)
	}
	return table
}
