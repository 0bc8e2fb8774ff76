package problem

import "strings"

// Search returns the pages and the codes of other systems that have all of the
// words in them, in any case.
func Search(words string) (pages []Page, others []Foreign) {
	wanted := strings.Fields(strings.ToLower(words))
	has := func(text string) bool {
		text = strings.ToLower(strings.Join(strings.Fields(text), " "))
		for _, w := range wanted {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return len(wanted) > 0
	}
	for _, p := range Pages() {
		if has(p.Text) {
			pages = append(pages, p)
		}
	}
	for _, f := range Known() {
		if has(strings.Join(f.Codes, " ") + " " + f.System + " " + f.Meaning + " " + f.Remedy + " " + f.Why) {
			others = append(others, f)
		}
	}
	return pages, others
}
