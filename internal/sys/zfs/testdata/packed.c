#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
#include <string.h>
#include <libnvpair.h>
static void dump(const char *n, nvlist_t *l){ char *b=NULL; size_t s=0; if(nvlist_pack(l,&b,&s,NV_ENCODE_NATIVE,0)) abort(); printf("%s ",n); for(size_t i=0;i<s;i++) printf("%02x",(unsigned char)b[i]); printf("\n"); }
int main(){
 nvlist_t *l,*m,*p; 
 l=fnvlist_alloc(); dump("empty",l);
 l=fnvlist_alloc(); m=fnvlist_alloc(); p=fnvlist_alloc();
 fnvlist_add_boolean(m,"tank@stillpoint-1"); fnvlist_add_boolean(m,"tank/My Media@stillpoint-1");
 fnvlist_add_nvlist(l,"snaps",m); fnvlist_add_string(p,"stillpoint:set","1 abcdef"); fnvlist_add_nvlist(l,"props",p); dump("snapshot",l);
 l=fnvlist_alloc(); m=fnvlist_alloc(); fnvlist_add_string(m,"tank@stillpoint-1","stillpoint-1"); fnvlist_add_nvlist(l,"holds",m); fnvlist_add_int32(l,"cleanup_fd",7); dump("hold",l);
 l=fnvlist_alloc(); m=fnvlist_alloc(); fnvlist_add_boolean(m,"stillpoint-1"); fnvlist_add_nvlist(l,"tank@stillpoint-1",m); dump("release",l);
 l=fnvlist_alloc(); m=fnvlist_alloc(); p=fnvlist_alloc(); fnvlist_add_uint64(m,"value",12345678901234567890ULL); fnvlist_add_nvlist(l,"guid",m);
 fnvlist_add_string(p,"value","1 abcdef"); fnvlist_add_string(p,"source","tank@x"); fnvlist_add_nvlist(l,"stillpoint:set",p);
 uint64_t a[3]={1,2,3}; fnvlist_add_uint64_array(l,"array",a,3); fnvlist_add_boolean_value(l,"yes",1); fnvlist_add_uint16(l,"short",3); dump("stats",l);
 return 0; }
