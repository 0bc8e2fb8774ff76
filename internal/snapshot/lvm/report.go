package lvm

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"stillpoint/internal/problem"
)

// A logical volume as lvs reports it.
type logical struct {
	Group     string `json:"vg_name"`
	GroupUUID string `json:"vg_uuid"`
	Name      string `json:"lv_name"`
	UUID      string `json:"lv_uuid"`
	Path      string `json:"lv_dm_path"` // "/dev/mapper/GROUP-NAME"
	Type      string `json:"segtype"`
	Pool      string `json:"pool_lv"`
	PoolUUID  string `json:"pool_lv_uuid"`
	Thin      string `json:"thin_id"`
	Tags      string `json:"lv_tags"`
	Size      string `json:"lv_size"`
	Attr      string `json:"vg_attr"` // of its group: "wz--n-"

	VolumeAttr string `json:"lv_attr"` // "twi-aotz--" of a thin pool
}

const columns = "vg_name,vg_uuid,lv_name,lv_uuid,lv_dm_path,segtype,pool_lv,pool_lv_uuid,thin_id,lv_tags,lv_size,vg_attr,lv_attr"

// glance is list as it is on the disks now, whoever has the volume groups.
func (c *console) glance(ctx context.Context, args ...string) ([]logical, error) {
	return c.aside.list(ctx, append([]string{"--readonly"}, args...)...)
}

// list asks for logical volumes, of all volume groups or of those named.
func (c *console) list(ctx context.Context, args ...string) ([]logical, error) {
	out, err := c.command(ctx, "lvs", append([]string{"--reportformat", "json", "--units", "b", "--nosuffix", "-a", "-o", columns}, args...)...)
	if err != nil {
		return nil, err
	}
	var r struct {
		Report []struct {
			LV []logical `json:"lv"`
		} `json:"report"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, problem.New(problem.SnapshotFailed, "lvs", fmt.Errorf("its report: %w", err))
	}
	var all []logical
	seen := map[string]bool{}
	for _, part := range r.Report {
		for _, lv := range part.LV {
			if !seen[lv.UUID] { // one line for each of its segments
				all, seen[lv.UUID] = append(all, lv), true
			}
		}
	}
	return all, nil
}

// bytes is its size.
func (lv logical) bytes() (int64, error) {
	n, err := strconv.ParseInt(lv.Size, 10, 64)
	if err != nil {
		return 0, problem.Newf(problem.SnapshotFailed, lv.full(), "lvs says that it has %q bytes", lv.Size)
	}
	return n, nil
}

// full is the name that commands take.
func (lv logical) full() string { return lv.Group + "/" + lv.Name }

// groupTakes is nil where LVM makes a volume in the group (vgs(8), of vg_attr).
func (lv logical) groupTakes() error {
	if len(lv.Attr) < 6 {
		return nil // the command that makes one will say so
	}
	switch {
	case lv.Attr[0] == 'r':
		return fmt.Errorf("its volume group %s is read-only", lv.Group)
	case lv.Attr[3] == 'p':
		return fmt.Errorf("a disk of its volume group %s is missing, and LVM makes no volume in such a group (vgs; vgreduce --removemissing when the disk is lost)", lv.Group)
	case lv.Attr[5] == 's' || lv.Attr[5] == 'c':
		return fmt.Errorf("its volume group %s is shared with other machines, where this was never tried", lv.Group)
	}
	return nil
}
