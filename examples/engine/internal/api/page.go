package api

import "github.com/carewire/carewire/examples/engine/internal/page"

// pageRoutes are the files of the page at /. They are the same in every engine and
// tell nothing of this one, so that they need no session, and what the page shows it
// asks of the routes above, like anybody else. Ten of them make one look at the page,
// which is why they do not count as requests.
func (s *Server) pageRoutes() []route {
	var list []route
	for _, path := range page.Paths() {
		list = append(list, route{
			method: "GET", pattern: path, access: anyone, summary: "A file of the page", handler: page.ServeHTTP,
			page: true, unlimited: true,
		})
	}
	return list
}
