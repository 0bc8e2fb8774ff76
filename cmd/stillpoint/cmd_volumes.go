package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/volume"
)

func newVolumes(e *env) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "volumes",
		Short: "list what is mounted and what lies below it",
		Long: `Lists the volumes of this host: identity, type, device stack, sizes, and where
they are mounted. File systems without data of this host (kernel, memory,
network, stacked) are listed with --all.`,
		Example: `  stillpoint volumes
  stillpoint volumes --all --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runVolumes(c.Context(), e, all) },
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "also those that hold no data of this host")
	jsonFlag(c, e)
	return c
}

// volumeInfo is one volume in `volumes --json`.
type volumeInfo struct {
	ID          volume.ID    `json:"id"`
	Kind        volume.Kind  `json:"kind"`
	Type        string       `json:"type"`
	UUID        string       `json:"uuid"`
	Label       string       `json:"label"`
	LabelBytes  []byte       `json:"label_bytes,omitempty"`
	Source      string       `json:"source"`
	SourceBytes []byte       `json:"source_bytes,omitempty"`
	Subvolume   *subvolInfo  `json:"subvolume,omitempty"`
	Stack       []deviceInfo `json:"stack"`
	Size        uint64       `json:"size"`
	Free        uint64       `json:"free"`
	Used        uint64       `json:"used"`
	ReadOnly    bool         `json:"read_only"`
	Options     []string     `json:"options"`
	Mounts      []mountInfo  `json:"mounts"`
}

type subvolInfo struct {
	ID        uint64 `json:"id"`
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
}

type deviceInfo struct {
	Name      string `json:"name"`
	Number    string `json:"number"`
	Type      string `json:"type"`
	DMName    string `json:"dm_name,omitempty"`
	File      string `json:"file,omitempty"` // behind a loop device
	FileBytes []byte `json:"file_bytes,omitempty"`
	Level     int    `json:"level"`
	Size      uint64 `json:"size"`
}

type mountInfo struct {
	Point      string   `json:"point"`
	PointBytes []byte   `json:"point_bytes,omitempty"`
	Root       string   `json:"root"`
	RootBytes  []byte   `json:"root_bytes,omitempty"`
	ReadOnly   bool     `json:"read_only"`
	Options    []string `json:"options"`
}

func volumeInfoOf(v *volume.Volume) volumeInfo {
	i := volumeInfo{
		ID: v.ID, Kind: v.Kind, Type: v.FSType, UUID: v.UUID, Label: v.Label, LabelBytes: job.NotText(v.Label), Source: v.Source, SourceBytes: job.NotText(v.Source),
		Stack: []deviceInfo{}, Size: v.Size, Free: v.Free, Used: v.Used, ReadOnly: v.ReadOnly,
		Options: append([]string{}, v.Options...), Mounts: []mountInfo{},
	}
	if v.Subvolume != nil {
		i.Subvolume = &subvolInfo{v.Subvolume.ID, v.Subvolume.Path, job.NotText(v.Subvolume.Path)}
	}
	for _, d := range v.Stack {
		i.Stack = append(i.Stack, deviceInfo{d.Name, d.Number, d.Type, d.DMName, d.File, job.NotText(d.File), d.Level, d.Size})
	}
	for _, m := range v.Mounts {
		i.Mounts = append(i.Mounts, mountInfo{m.Point, job.NotText(m.Point), m.Root, job.NotText(m.Root), m.ReadOnly, append([]string{}, m.Options...)})
	}
	return i
}

func runVolumes(ctx context.Context, e *env, all bool) error {
	t, err := volume.Read(ctx, volume.Host())
	if err != nil {
		return err
	}
	infos := []volumeInfo{}
	for _, v := range t.Volumes() {
		if all || v.Kind == volume.Local || v.Kind == volume.EFI {
			infos = append(infos, volumeInfoOf(&v))
		}
	}
	if e.json {
		return e.print(infos)
	}
	for _, w := range t.Warnings() {
		fmt.Fprintln(e.stderr, "stillpoint:", w)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VOLUME\tKIND\tTYPE\tSIZE\tUSED\tDEVICES\tMOUNTED AT")
	for _, i := range infos {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i.ID, i.Kind, i.Type, bytesText(int64(i.Size)), bytesText(int64(i.Used)), stackText(i.Stack), mountsText(i.Mounts))
	}
	return w.Flush()
}

// stackText shows a stack from the file system down: "dm-1 (crypt) on sda3".
func stackText(ds []deviceInfo) string {
	var b strings.Builder
	for i, d := range ds {
		switch {
		case i == 0:
		case d.Level > ds[i-1].Level:
			b.WriteString(" on ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(d.Name)
		if d.DMName != "" {
			b.WriteString(" " + d.DMName)
		}
		if d.Type != "disk" && d.Type != "part" {
			b.WriteString(" (" + d.Type + ")")
		}
	}
	return dash(b.String())
}

func mountsText(ms []mountInfo) string {
	var out []string
	for _, m := range ms {
		s := quote(m.Point)
		if m.Root != "/" {
			s += " (" + quote(m.Root) + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}
